import Foundation
import IOKit

/// Facts that the launcher reads by itself.
enum Machine {
    static var appVersion: String {
        Bundle.main.object(forInfoDictionaryKey: "CFBundleShortVersionString") as? String ?? "0"
    }

    static var osVersion: String {
        let version = ProcessInfo.processInfo.operatingSystemVersion
        return "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
    }

    static func serialNumber() -> String? {
        let expert = IOServiceGetMatchingService(
            kIOMainPortDefault, IOServiceMatching("IOPlatformExpertDevice"))
        guard expert != 0 else { return nil }
        defer { IOObjectRelease(expert) }
        let property = IORegistryEntryCreateCFProperty(
            expert, kIOPlatformSerialNumberKey as CFString, kCFAllocatorDefault, 0)
        guard let serial = property?.takeRetainedValue() as? String, (8...32).contains(serial.count),
              serial.allSatisfy({ $0.isASCII && ($0.isNumber || $0.isUppercase) })
        else { return nil }
        return serial
    }
}
