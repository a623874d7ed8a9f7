// The launcher: the one process that Apple knows. It starts the agent, attests what the agent is
// challenged for, and passes pushes on. It serves nothing else and never sees a prompt.
//
// Never compiled or run where it was written: there was no Mac. See docs/mac.md.

import AppKit

let application = NSApplication.shared
let delegate = Launcher()
application.delegate = delegate
application.setActivationPolicy(.prohibited)
application.run()
