import Darwin
import Foundation

/// Messages of 4 bytes of length, big endian, and one JSON object (deploy/macos/README.md).
final class Channel {
    static let maxBytes = 262_144

    private let descriptor: Int32
    private let writing = NSLock()

    init(descriptor: Int32) { self.descriptor = descriptor }

    /// The next message; nil at the end, or where the agent breaks the protocol.
    func read() -> [String: Any]? {
        guard let head = take(4) else { return nil }
        let size = head.reduce(0) { $0 << 8 | Int($1) }
        guard size <= Channel.maxBytes, let body = take(size) else { return nil }
        return (try? JSONSerialization.jsonObject(with: body)) as? [String: Any]
    }

    func write(_ message: [String: Any]) {
        guard let body = try? JSONSerialization.data(
            withJSONObject: message, options: [.sortedKeys, .withoutEscapingSlashes]),
            body.count <= Channel.maxBytes else { return }
        var size = UInt32(body.count).bigEndian
        let data = Data(bytes: &size, count: 4) + body
        writing.lock()
        defer { writing.unlock() }
        data.withUnsafeBytes { buffer in
            var sent = 0
            while sent < buffer.count {
                let count = Darwin.write(descriptor, buffer.baseAddress! + sent, buffer.count - sent)
                if count < 0 && errno == EINTR { continue }
                guard count > 0 else { return }
                sent += count
            }
        }
    }

    private func take(_ count: Int) -> Data? {
        var data = Data(count: count)
        var got = 0
        while got < count {
            let read = data.withUnsafeMutableBytes {
                Darwin.read(descriptor, $0.baseAddress! + got, count - got)
            }
            if read < 0 && errno == EINTR { continue }
            guard read > 0 else { return nil }
            got += read
        }
        return data
    }
}
