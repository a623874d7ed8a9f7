import Darwin
import Foundation
import Security

enum LauncherError: Error { case bundle, spawn, code }

/// The agent: the bundled interpreter, isolated, with one end of a socketpair as descriptor 3.
final class Agent {
    static let childDescriptor: Int32 = 3
    static let identifier = "io.darkbloom.provider.python"

    /// Our end.
    let descriptor: Int32
    private let process: pid_t
    private let requirement: SecRequirement

    private init(descriptor: Int32, process: pid_t, requirement: SecRequirement) {
        self.descriptor = descriptor
        self.process = process
        self.requirement = requirement
    }

    static func start() throws -> Agent {
        let requirement = try teamRequirement()
        let python = Bundle.main.bundleURL
            .appendingPathComponent("Contents/Helpers/DarkbloomPython.app/Contents/MacOS/python3")
        var pair: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, SOCK_STREAM, 0, &pair) == 0 else { throw LauncherError.spawn }
        defer { close(pair[1]) }

        var actions: posix_spawn_file_actions_t?
        var attributes: posix_spawnattr_t?
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        // Everything is closed in the child but what is named here.
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_CLOEXEC_DEFAULT))
        posix_spawn_file_actions_adddup2(&actions, pair[1], childDescriptor)
        for standard in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] {
            posix_spawn_file_actions_addinherit_np(&actions, standard)
        }

        // -I: no PYTHON* variable, no user site, no current folder on the path. -B: nothing is
        // written into the sealed bundle.
        let arguments = [python.path, "-I", "-B", "-m", "darkbloom_provider", "start", "--foreground"]
            + CommandLine.arguments.dropFirst()
        var process: pid_t = 0
        let spawned = withCStrings(arguments) { argv in
            withCStrings(environment()) { envp in
                posix_spawn(&process, python.path, &actions, &attributes, argv, envp)
            }
        }
        guard spawned == 0 else {
            close(pair[0])
            throw LauncherError.spawn
        }
        let agent = Agent(descriptor: pair[0], process: process, requirement: requirement)
        guard agent.isGenuine() else {
            kill(process, SIGKILL)
            throw LauncherError.code
        }
        return agent
    }

    /// Whether the running child is still our own signed interpreter, unmodified. Asked before
    /// every signature: what is attested is attested for this process.
    func isGenuine() -> Bool {
        var code: SecCode?
        let attributes = [kSecGuestAttributePid: process] as CFDictionary
        guard SecCodeCopyGuestWithAttributes(nil, attributes, [], &code) == errSecSuccess,
              let code else { return false }
        return SecCodeCheckValidity(code, [], requirement) == errSecSuccess
    }

    func terminate() { kill(process, SIGTERM) }

    func wait() -> Int32 {
        var status: Int32 = 0
        guard waitpid(process, &status, 0) == process else { return 1 }
        return status & 0x7f == 0 ? (status >> 8) & 0xff : 1
    }

    /// Signed by our own team, with the interpreter's identifier.
    private static func teamRequirement() throws -> SecRequirement {
        guard let team = Bundle.main.object(forInfoDictionaryKey: "DarkbloomTeamID") as? String,
              team.count == 10, team.allSatisfy({ $0.isASCII && ($0.isNumber || $0.isUppercase) })
        else { throw LauncherError.bundle }
        let text = "anchor apple generic and identifier \"\(identifier)\" "
            + "and certificate leaf[subject.OU] = \"\(team)\""
        var requirement: SecRequirement?
        guard SecRequirementCreateWithString(text as CFString, [], &requirement) == errSecSuccess,
              let requirement else { throw LauncherError.bundle }
        return requirement
    }

    /// Only what the agent reads: nothing that another program could inject code with.
    private static func environment() -> [String] {
        let ours = ProcessInfo.processInfo.environment
        var kept = ours.filter { name, _ in
            name.hasPrefix("DARKBLOOM_") || ["HOME", "TMPDIR", "USER", "LOGNAME"].contains(name)
        }
        kept["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin"
        kept["LANG"] = "C.UTF-8"
        kept["DARKBLOOM_PROVIDER_LAUNCHER_FD"] = String(childDescriptor)
        if let team = Bundle.main.object(forInfoDictionaryKey: "DarkbloomTeamID") as? String {
            kept["DARKBLOOM_PROVIDER_KEYCHAIN_GROUP"] = "\(team).io.darkbloom.provider"
        }
        return kept.map { "\($0.key)=\($0.value)" }
    }
}

private func withCStrings<Result>(
    _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
) -> Result {
    var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
    pointers.append(nil)
    defer { pointers.forEach { free($0) } }
    return body(pointers)
}
