import CryptoKit
import Foundation

/// Answers the agent. Keys are bound once for the life of this process; everything that is signed
/// is derived here and never taken from a message, but for the challenge.
final class Service {
    static let protocolVersion = 1

    private struct Bound {
        let encryptionKey: String
        let identityKey: String
    }

    private let channel: Channel
    private let agent: Agent
    private let attestor = Attestor()
    private let nonce = Data((0..<32).map { _ in UInt8.random(in: .min ... .max) })
    private var bound: Bound?

    init(channel: Channel, agent: Agent) {
        self.channel = channel
        self.agent = agent
    }

    /// Read on a thread of its own until the agent is gone.
    func run(whenOver: @escaping () -> Void) {
        Thread.detachNewThread { [self] in
            while let message = channel.read() {
                guard let id = message["id"] as? Int else { continue }
                var answer = self.answer(message)
                answer["id"] = id
                channel.write(answer)
            }
            whenOver()
        }
    }

    func tellPushToken(_ token: Data) {
        let hex = token.map { String(format: "%02x", $0) }.joined()
        #if DEBUG
        let environment = "development"
        #else
        let environment = "production"
        #endif
        channel.write(["event": "push_token", "token": hex, "environment": environment])
    }

    func tellCodeChallenge(_ userInfo: [String: Any]) {
        guard let sealed = userInfo["code_challenge"] as? [String: String],
              let key = sealed["ephemeral_public_key"], let ciphertext = sealed["ciphertext"],
              key.count == 44, ciphertext.count <= 4096 else { return }
        channel.write([
            "event": "code_challenge", "ephemeral_public_key": key, "ciphertext": ciphertext,
        ])
    }

    private func answer(_ message: [String: Any]) -> [String: Any] {
        switch message["op"] as? String {
        case "hello": return hello(message)
        case "bind": return bind(message)
        case "evidence": return evidence(message)
        case "renew_key": return attestor.renew() ? ["ok": true] : refuse("too_soon")
        default: return refuse("unknown_operation")
        }
    }

    private func hello(_ message: [String: Any]) -> [String: Any] {
        guard message["protocol"] as? Int == Service.protocolVersion else {
            return refuse("protocol_unsupported")
        }
        return [
            "ok": true, "protocol": Service.protocolVersion, "nonce": nonce.base64EncodedString(),
            "app_version": Machine.appVersion, "app_attest": attestor.isSupported, "push": true,
        ]
    }

    private func bind(_ message: [String: Any]) -> [String: Any] {
        guard bound == nil else { return refuse("already_bound") }
        guard let encryption = message["encryption_key"] as? String,
              let identity = message["identity_key"] as? String,
              let k = Data(base64Encoded: encryption), k.count == 32,
              let point = Data(base64Encoded: identity), point.count == 65,
              let der = Data(base64Encoded: message["signature"] as? String ?? "")
        else { return refuse("request_malformed") }
        guard let key = try? P256.Signing.PublicKey(x963Representation: point),
              let signature = try? P256.Signing.ECDSASignature(derRepresentation: der),
              key.isValidSignature(signature, for: domain("launcher_bind") + nonce + k)
        else { return refuse("bad_signature") }
        bound = Bound(encryptionKey: encryption, identityKey: identity)
        return ["ok": true]
    }

    private func evidence(_ message: [String: Any]) -> [String: Any] {
        guard let bound else { return refuse("not_bound") }
        guard agent.isGenuine() else { return refuse("agent_changed") }
        guard let provider = message["provider_id"] as? String, isName(provider),
              let challenge = message["nonce"] as? String, isName(challenge),
              let timestamp = message["timestamp"] as? String, isName(timestamp)
        else { return refuse("request_malformed") }
        guard let serial = Machine.serialNumber() else { return refuse("serial_unreadable") }

        let salt = SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) }
        let commitment = SHA256.hash(
            data: Data("darkbloom:serial-commitment:v1\0".utf8) + salt + Data(serial.utf8))
        let fields: [String: Any] = [
            "version": 1, "provider_id": provider, "nonce": challenge, "timestamp": timestamp,
            "identity_key": bound.identityKey, "encryption_key": bound.encryptionKey,
            "serial_commitment": commitment.map { String(format: "%02x", $0) }.joined(),
            "app_version": Machine.appVersion, "os_version": Machine.osVersion,
        ]
        // Canonical: sorted keys, compact, no escaped slash. Every value is plain ASCII.
        guard let statement = try? JSONSerialization.data(
            withJSONObject: fields, options: [.sortedKeys, .withoutEscapingSlashes])
        else { return refuse("request_malformed") }

        let digest = Data(SHA256.hash(data: domain("device_statement") + statement))
        switch attestor.prove(digest) {
        case .failure(let refusal): return refuse(refusal.rawValue)
        case .success(let proof):
            var said: [String: Any] = [
                "ok": true, "statement": statement.base64EncodedString(), "serial_number": serial,
                "serial_salt": salt.base64EncodedString(), "key_id": proof.keyID,
            ]
            said[proof.isAttestation ? "attestation" : "assertion"] =
                proof.object.base64EncodedString()
            return said
        }
    }

    private func domain(_ kind: String) -> Data { Data("darkbloom:\(kind):v1\0".utf8) }

    /// What JSON writes in one way only.
    private func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 512
            && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x22 && $0 != 0x5c }
    }

    private func refuse(_ word: String) -> [String: Any] { ["ok": false, "error": word] }
}
