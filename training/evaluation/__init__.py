"""What `python -m training evaluate` is made of: pairs, contenders, judging, timing, tables, pictures."""
