"""Evidence, challenges, verdicts, blessed code, revocations and receipt keys.

Attestation says which provider may get whose requests, signs it for at most sixteen minutes, and
takes it back when something was wrong. What it decides rests on evidence that it keeps; a software
key can never reach more than `self_signed` here, whatever it claims.
"""
