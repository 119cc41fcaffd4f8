"""What a run leaves on disk, how it is written, and how far what lies there is trusted."""
