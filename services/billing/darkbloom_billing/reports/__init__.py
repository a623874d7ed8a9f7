"""What was used, earned and booked, and the figures that everybody may see. Reads only.

Histories are read row by row, newest first, by cursor. Sums come from roll-ups that a background
task keeps: no request ever scans usage. Nothing here moves money.
"""
