"""The runners, which carry out stages step by step."""
