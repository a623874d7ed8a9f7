"""Apple's push channel, the one way to reach only processes that our team has signed.

Pure rules (`model`, `payload`, `budget`, `proofs`) and one adapter (`client`). A push grants
nothing: what counts is the answer, which `darkbloom_edge.code_identity` judges.
"""
