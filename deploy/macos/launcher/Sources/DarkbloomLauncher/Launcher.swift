import AppKit
import Darwin
import Foundation

/// Life of the application: hardens itself, starts the agent, ends with it.
final class Launcher: NSObject, NSApplicationDelegate {
    private var agent: Agent?
    private var service: Service?
    private var termination: DispatchSourceSignal?

    func applicationDidFinishLaunching(_ notification: Notification) {
        harden()
        do {
            let agent = try Agent.start()
            let service = Service(channel: Channel(descriptor: agent.descriptor), agent: agent)
            self.agent = agent
            self.service = service
            forwardTermination(to: agent)
            service.run { [weak agent] in
                // The agent has closed its end: it leaves, and so do we.
                exit(agent?.wait() ?? 1)
            }
            NSApplication.shared.registerForRemoteNotifications()
        } catch {
            // No detail: a path or an identifier must not reach a log of strangers.
            FileHandle.standardError.write(Data("darkbloom: the agent could not be started\n".utf8))
            exit(1)
        }
    }

    func application(
        _ application: NSApplication,
        didRegisterForRemoteNotificationsWithDeviceToken deviceToken: Data
    ) {
        service?.tellPushToken(deviceToken)
    }

    func application(
        _ application: NSApplication, didFailToRegisterForRemoteNotificationsWithError error: Error
    ) {
        // Without an address there are no pushes; App Attest does not need them.
    }

    func application(
        _ application: NSApplication, didReceiveRemoteNotification userInfo: [String: Any]
    ) {
        service?.tellCodeChallenge(userInfo)
    }

    private func harden() {
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        setrlimit(RLIMIT_CORE, &none)
        _ = ptrace(31 /* PT_DENY_ATTACH */, 0, nil, 0)
    }

    private func forwardTermination(to agent: Agent) {
        signal(SIGTERM, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: SIGTERM, queue: .main)
        source.setEventHandler { agent.terminate() }
        source.resume()
        termination = source
    }
}

// Not in the Darwin overlay.
@_silgen_name("ptrace")
private func ptrace(_ request: Int32, _ process: pid_t, _ address: UnsafeMutableRawPointer?,
                    _ data: Int32) -> Int32
