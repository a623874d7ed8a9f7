"""The tables of code identity."""

from typing import final

from darkbloom_edge.code_identity import CodeChallenge
from darkbloom_mesh.postgres import Connection

from darkbloom_attestation.apns.model import PushAddress, PushEnvironment, PushToken
from darkbloom_attestation.apns.proofs import CodeProof


@final
class CodeTable:
    """Addresses, outstanding challenges and newest proofs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put_address(self, provider_id: str, address: PushAddress) -> None:
        """Write where a push reaches a session's app."""
        await self._connection.execute(
            "INSERT INTO attestation.push_addresses (provider_id, token, environment)"
            " VALUES ($1, $2, $3) ON CONFLICT (provider_id) DO NOTHING",
            provider_id,
            address.token.text.lower(),
            address.environment.value,
        )

    async def address(self, provider_id: str) -> PushAddress | None:
        """Return where a push reaches a session's app."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.push_addresses WHERE provider_id = $1", provider_id
        )
        if row is None:
            return None
        return PushAddress(PushToken(row["token"]), PushEnvironment(row["environment"]))

    async def forget_token(self, token: PushToken) -> None:
        """Forget an address that Apple no longer knows, wherever it was presented."""
        await self._connection.execute(
            "DELETE FROM attestation.push_addresses WHERE token = $1", token.text.lower()
        )

    async def ask(self, challenge: CodeChallenge) -> None:
        """Write an outstanding challenge; the one before can no longer be answered."""
        await self._connection.execute(
            "INSERT INTO attestation.code_challenges (provider_id, nonce, identity_key,"
            " encryption_key, push_token_hash, channel, create_time)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (provider_id) DO UPDATE SET"
            " nonce = $2, identity_key = $3, encryption_key = $4, push_token_hash = $5,"
            " channel = $6, create_time = $7",
            challenge.provider_id,
            challenge.nonce,
            challenge.identity_key,
            challenge.encryption_key,
            challenge.push_token_hash,
            challenge.channel,
            challenge.create_time,
        )

    async def outstanding(self, provider_id: str) -> CodeChallenge | None:
        """Return what a session was asked and has not answered."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.code_challenges WHERE provider_id = $1", provider_id
        )
        return None if row is None else CodeChallenge(**row)

    async def consume(self, provider_id: str, nonce: bytes) -> CodeChallenge | None:
        """Take a challenge out, in one statement; None where no such nonce is outstanding."""
        row = await self._connection.fetchrow(
            "DELETE FROM attestation.code_challenges WHERE provider_id = $1 AND nonce = $2"
            " RETURNING *",
            provider_id,
            nonce,
        )
        return None if row is None else CodeChallenge(**row)

    async def put_proof(self, proof: CodeProof, provider_id: str) -> None:
        """Write the newest answered push of an identity."""
        await self._connection.execute(
            "INSERT INTO attestation.code_proofs (identity_key, encryption_key, push_token_hash,"
            " version, provider_id, prove_time) VALUES ($1, $2, $3, $4, $5, $6)"
            " ON CONFLICT (identity_key) DO UPDATE SET encryption_key = $2, push_token_hash = $3,"
            " version = $4, provider_id = $5, prove_time = $6",
            proof.identity_key,
            proof.encryption_key,
            proof.push_token_hash,
            proof.version,
            provider_id,
            proof.prove_time,
        )

    async def proof_of(self, identity_key: bytes) -> CodeProof | None:
        """Return the newest answered push of an identity, and when its session was last seen."""
        row = await self._connection.fetchrow(
            "SELECT p.*, coalesce(s.seen_time, p.prove_time) AS last_seen_time"
            " FROM attestation.code_proofs p JOIN attestation.sessions s USING (provider_id)"
            " WHERE p.identity_key = $1",
            identity_key,
        )
        if row is None:
            return None
        return CodeProof(
            identity_key=row["identity_key"],
            encryption_key=row["encryption_key"],
            push_token_hash=row["push_token_hash"],
            version=row["version"],
            prove_time=row["prove_time"],
            last_seen_time=row["last_seen_time"],
        )
