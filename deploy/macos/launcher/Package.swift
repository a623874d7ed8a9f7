// swift-tools-version:6.0
import PackageDescription

let package = Package(
    name: "DarkbloomLauncher",
    platforms: [.macOS(.v14)],
    targets: [
        .executableTarget(name: "DarkbloomLauncher")
    ],
    swiftLanguageModes: [.v5]
)
