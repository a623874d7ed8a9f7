#!/bin/sh
# Keep, upload and register what build.sh has made. May be repeated until it is through; it builds and
# signs nothing of Apple's. Runs where the release key is: that need not be a Mac.
#
#   RETAIN=/volumes/releases UPLOAD=./upload RELEASE_KEY=/keys/release RELEASE_TARGET=attestation:7103 \
#   ./publish.sh 1.2.3
#
# RETAIN: a folder that nobody cleans; an archive in it is never replaced by another.
# UPLOAD: a program that is called with a file and the https address that it must be had from.
# FETCH: a program that writes what an address holds to its output; curl by default.
# ATTESTATION: the command line of attestation; `python3 -m darkbloom_attestation` by default.
# A colleague reads the release and blesses it: `release show`, then `release activate`.
set -eu

version=${1:?usage: publish.sh VERSION}
for name in RETAIN UPLOAD RELEASE_KEY RELEASE_TARGET; do
    eval "value=\${$name:-}"
    [ -n "$value" ] || { echo "publish.sh: $name is not set" >&2; exit 64; }
done
out=${OUT:-$(cd "$(dirname "$0")" && pwd)/out}
attestation=${ATTESTATION:-python3 -m darkbloom_attestation}
fetch=${FETCH:-curl --fail --silent --show-error --location --max-time 600}
name="darkbloom-provider-$version-macos-arm64.zip"
measured="$out/measured.json"

say() { echo "== $1"; }
fail() { echo "publish.sh: $1" >&2; exit 65; }
digest() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1
}
# A field of the measured bundle: compact JSON with sorted keys, written by the agent.
field() { sed -n "s/.*\"bundle\":{[^}]*\"$1\":\"\\([^\"]*\\)\".*/\\1/p" "$measured"; }

[ -f "$out/$name" ] && [ -f "$measured" ] || fail "there is no $name; run build.sh $version"
want=$(field sha256)
url=$(field url)
[ -n "$want" ] || fail "the measurement names no bundle"
[ "$(digest < "$out/$name")" = "$want" ] || fail "$name is not what was measured"
case $url in
    https://*/"$name") ;;
    *) fail "the measurement names another address: $url" ;;
esac

say retain
mkdir -p "$RETAIN"
if [ -e "$RETAIN/$name" ]; then
    [ "$(digest < "$RETAIN/$name")" = "$want" ] ||
        fail "another $name was released already; a version is released once"
else
    cp "$out/$name" "$RETAIN/.$name.part"
    chmod 0444 "$RETAIN/.$name.part"
    mv "$RETAIN/.$name.part" "$RETAIN/$name"
fi

say upload
"$UPLOAD" "$RETAIN/$name" "$url"
# Split into words on purpose: both may be a program with arguments.
# shellcheck disable=SC2086
[ "$($fetch "$url" | digest)" = "$want" ] || fail "$url holds something else"

say register
signed="$RETAIN/$name.release.json"
if [ ! -e "$signed" ]; then
    # shellcheck disable=SC2086
    $attestation release sign "$measured" --key "$RELEASE_KEY" --out "$signed.part"
    mv "$signed.part" "$signed"
fi
# shellcheck disable=SC2086
$attestation release register "$signed" --stage --target "$RELEASE_TARGET"
echo "next: a colleague runs \`release show $signed\`, then \`release activate\`"
