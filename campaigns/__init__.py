"""Campaigns: the guarantees of docs/reliability.md, tried by breaking things on purpose."""
