"""The `seminar` command: verbs, the demo and its report."""
