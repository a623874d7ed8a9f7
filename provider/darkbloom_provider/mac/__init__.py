"""What only a Mac offers: boot posture, the Secure Enclave, and the signed launcher.

Nothing of it was ever run on a Mac by us. Everything is tested up to the system call: parsers on
recorded outputs, the enclave on a stand-in for the two frameworks, the launcher on a stand-in
process (docs/mac.md says so line by line).
"""
