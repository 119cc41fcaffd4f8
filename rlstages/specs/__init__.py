"""What a person writes down, as frozen data: no torch, no gymnasium."""
