"""The exit codes of the command line, besides 0."""

FAULT, INPUT, MISSED, INTERRUPTED = 1, 2, 3, 130
