"""The general search unit at serving: which past behaviours a target attends to, exactly or by product quantisation."""
