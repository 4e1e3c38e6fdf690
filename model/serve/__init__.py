"""Answers click-through rates from online features with the promoted bundle."""
