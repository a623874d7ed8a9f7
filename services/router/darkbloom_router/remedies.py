"""What an owner can do about each reason of trust; the words are attestation's and our own."""

_REMEDIES = {
    "key_proof_missing": "start the agent as the signed app, so that it can show App Attest",
    "key_proof_rejected": "update the app; if it repeats, remove its key with darkbloom enroll",
    "posture_missing": "enrol this Mac with darkbloom enroll, and keep it online",
    "posture_stale": "keep this Mac online: its posture is asked for again by itself",
    "posture_rejected": "enrol this Mac again with darkbloom enroll",
    "posture_mismatch": "turn SIP and full security on in Recovery, then restart the agent",
    "posture_not_claimed": "nothing on this machine: it is not a Mac with SIP and full security",
    "mda_serial_mismatch": "run the agent on the Mac that it was enrolled for",
    "serial_in_use": "stop the other agent of this Mac, then wait 90 s",
    "serial_taken": "another agent of this Mac has shown better evidence; run only one",
    "durably_revoked": "restart the agent: what was shown before counts no more",
    "code_unknown": "update the agent: its code is not a release in use",
    "sip_disabled": "turn SIP on in Recovery (csrutil enable), then restart the agent",
    "secure_boot_disabled": "choose full security in Recovery, then restart the agent",
    "binary_hash_mismatch": "restart the agent: its program was replaced while it ran",
    "weight_hash_mismatch": "download the build again: its weights are not the catalog's",
    "challenges_unanswered": "keep this machine awake; it recovers with its next answer",
    "stale": "set the clock of this machine, then restart the agent",
    "revoked": "wait for the next challenge; if it repeats, run darkbloom doctor",
    "evidence_rejected": "restart the agent; if it repeats, run darkbloom doctor",
    "violation": "update the agent, and report this: it broke the sealed protocol",
}


def remedy(reason: str) -> str:
    """Return what helps against a reason; empty where nothing is wrong or nothing helps."""
    return _REMEDIES.get(reason, "")
