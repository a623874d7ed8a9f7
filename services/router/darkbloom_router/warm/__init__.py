"""Which builds are kept in memory, and where: targets, commands in flight, and whom to ask.

Pure but for `keeper`, which sends the commands (routing section 14).
"""
