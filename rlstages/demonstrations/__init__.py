"""What an expert has shown: episodes in memory, files of them, and what a run keeps."""
