import DeviceCheck
import Foundation

/// App Attest: one key of this app on this Mac, attested when it is made, asserting ever after.
final class Attestor {
    enum Refusal: String, Error {
        case unavailable = "app_attest_unavailable"
        case apple = "apple_unavailable"
    }

    struct Proof {
        let keyID: String
        let object: Data
        let isAttestation: Bool
    }

    /// Apple counts the keys of a device: a new one at most once an hour.
    private static let renewSeconds: TimeInterval = 3600
    private static let deadlineSeconds = 15

    private let service = DCAppAttestService.shared
    private let defaults = UserDefaults.standard
    private var renewed: Date?

    var isSupported: Bool { service.isSupported }

    /// Sign a digest. Blocks for at most 30 s; called on the reader's thread only.
    func prove(_ digest: Data) -> Result<Proof, Refusal> {
        guard isSupported else { return .failure(.unavailable) }
        if let known = defaults.string(forKey: "keyID") {
            let made = wait { self.service.generateAssertion(known, clientDataHash: digest, completionHandler: $0) }
            switch made {
            case .success(let object):
                return .success(Proof(keyID: known, object: object, isAttestation: false))
            case .failure(let error as DCError) where error.code == .invalidKey:
                // The key is gone, for example after the Mac was erased.
                defaults.removeObject(forKey: "keyID")
            case .failure:
                return .failure(.apple)
            }
        }
        return attest(digest)
    }

    /// Forget the key, so that the next proof attests another; false where that is too soon.
    func renew() -> Bool {
        if let renewed, Date().timeIntervalSince(renewed) < Attestor.renewSeconds { return false }
        renewed = Date()
        defaults.removeObject(forKey: "keyID")
        return true
    }

    private func attest(_ digest: Data) -> Result<Proof, Refusal> {
        guard case .success(let key) = wait({ self.service.generateKey(completionHandler: $0) }),
              case .success(let object) = wait({
                  self.service.attestKey(key, clientDataHash: digest, completionHandler: $0)
              })
        else { return .failure(.apple) }
        defaults.set(key, forKey: "keyID")
        return .success(Proof(keyID: key, object: object, isAttestation: true))
    }

    private func wait<Value>(
        _ call: (@escaping (Value?, Error?) -> Void) -> Void
    ) -> Result<Value, Error> {
        let done = DispatchSemaphore(value: 0)
        var result: Result<Value, Error> = .failure(Refusal.apple)
        let lock = NSLock()
        call { value, error in
            lock.lock()
            if let value { result = .success(value) } else if let error { result = .failure(error) }
            lock.unlock()
            done.signal()
        }
        _ = done.wait(timeout: .now() + .seconds(Attestor.deadlineSeconds))
        lock.lock()
        defer { lock.unlock() }
        return result
    }
}
