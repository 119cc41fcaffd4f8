"""Everything that a user writes, as frozen data: no torch, no gymnasium."""
