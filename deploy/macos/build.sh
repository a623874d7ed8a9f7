#!/bin/sh
# Build, sign, notarise and hash the provider application. Runs on a Mac only; never run by us on one:
# tests run it with stand-ins for Apple's tools, which shows its order and nothing more.
#
#   TEAM_ID=ABCDE12345 IDENTITY="Developer ID Application: Example (ABCDE12345)" \
#   PROFILE=launcher.provisionprofile PYTHON_PROFILE=python.provisionprofile \
#   NOTARY_PROFILE=darkbloom PYTHON_HOME=/path/to/relocatable/python \
#   BUNDLE_URL=https://releases.example/provider ./build.sh 1.2.3
#
# PYTHON_HOME: a relocatable CPython 3.11 for arm64, with the agent and its pinned dependencies
# installed into it (`make install` pins them; no wheel is compiled here).
# BUNDLE_URL: folder that the archive will be had from; its name carries the version.
# VERSION must be what the tree says (pyproject.toml); it is asked for so that nobody builds another.
# The order is sign, notarise, staple, archive, and only then hash: a hash from before the
# stapling names bytes that nobody downloads. publish.sh goes on from here, and never signs again.
set -eu

version=${1:?usage: build.sh VERSION}
for name in BUNDLE_URL TEAM_ID IDENTITY PROFILE PYTHON_PROFILE NOTARY_PROFILE PYTHON_HOME; do
    eval "value=\${$name:-}"
    [ -n "$value" ] || { echo "build.sh: $name is not set" >&2; exit 64; }
done
case $BUNDLE_URL in
    https://*) ;;
    *) echo "build.sh: BUNDLE_URL is no https address" >&2; exit 64 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
declared=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$here/../../pyproject.toml")
[ "$version" = "$declared" ] || {
    echo "build.sh: the tree is $declared, not $version; see docs/releasing.md" >&2
    exit 65
}
[ "$(uname -s)" = Darwin ] || { echo "build.sh: needs a Mac" >&2; exit 69; }
case $TEAM_ID in
    *[!A-Z0-9]* | ???????????*) echo "build.sh: TEAM_ID has 10 letters and digits" >&2; exit 64 ;;
esac

say() { echo "== $1"; }
out=$here/out
app="$out/Darkbloom Provider.app"
python="$app/Contents/Helpers/DarkbloomPython.app"
rm -rf "$out"
mkdir -p "$app/Contents/MacOS" "$app/Contents/Helpers" "$python/Contents/MacOS"

fill() {
    sed -e "s/@VERSION@/$version/g" -e "s/@TEAM_ID@/$TEAM_ID/g" "$here/bundle/$1" > "$2"
    plutil -lint -s "$2"
}

say build
swift build --package-path "$here/launcher" -c release --arch arm64
cp "$here/launcher/.build/arm64-apple-macosx/release/DarkbloomLauncher" "$app/Contents/MacOS/"
fill Info.plist "$app/Contents/Info.plist"
cp "$PROFILE" "$app/Contents/embedded.provisionprofile"

# The interpreter is an application of its own, because entitlements for a keychain group need a
# provisioning profile, and a profile needs a bundle.
cp -R "$PYTHON_HOME/." "$python/Contents/Resources"
mv "$python/Contents/Resources/bin/python3.11" "$python/Contents/MacOS/python3"
find "$python" -name __pycache__ -type d -prune -exec rm -rf {} +
fill Python-Info.plist "$python/Contents/Info.plist"
cp "$PYTHON_PROFILE" "$python/Contents/embedded.provisionprofile"

fill launcher.entitlements "$out/launcher.entitlements"
fill python.entitlements "$out/python.entitlements"

say sign
# Inside out. Hardened Runtime everywhere; no get-task-allow, no library injection, no JIT.
sign() {
    codesign --force --timestamp --options runtime --sign "$IDENTITY" "$@"
}
find "$python/Contents/Resources" \( -name '*.so' -o -name '*.dylib' \) -type f -print |
    while IFS= read -r library; do sign "$library"; done
sign --entitlements "$out/python.entitlements" "$python"
sign --entitlements "$out/launcher.entitlements" "$app"
codesign --verify --deep --strict --verbose=2 "$app"

say notarise
ditto -c -k --keepParent "$app" "$out/notarise.zip"
xcrun notarytool submit "$out/notarise.zip" --keychain-profile "$NOTARY_PROFILE" --wait
say staple
xcrun stapler staple "$app"
spctl --assess --type execute --verbose=2 "$app"

say archive
name="darkbloom-provider-$version-macos-arm64.zip"
archive="$out/$name"
ditto -c -k --keepParent "$app" "$archive"
rm "$out/notarise.zip"

say hash
# What a release must bless, as the bundled agent itself measures it, with the archive's own hash. It
# must say this version: an agent of another one was installed into PYTHON_HOME otherwise.
"$python/Contents/MacOS/python3" -I -B -m darkbloom_provider code-release \
    --manifest "$out/measured.json" --bundle "$archive" --bundle-url "$BUNDLE_URL/$name"
grep -q "\"release_version\":\"$version\"" "$out/measured.json" || {
    echo "build.sh: the agent in PYTHON_HOME is of another version" >&2
    exit 65
}
(cd "$out" && shasum -a 256 "$name" | tee "$name.sha256")
echo "next: publish.sh $version"
