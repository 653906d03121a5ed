#!/bin/sh
# erofs-utils.sh DIR: puts erofs-utils of Debian trixie (1.8, with zstd) and the libraries they need into DIR, with
# wrappers in DIR/bin that run on an older system. For tests/erofs_reference.rs: PROOFMARK_EROFS_UTILS=DIR/bin.
# On trixie or later, `apt-get install erofs-utils` does instead. Needs curl, xz, awk, dpkg-deb.
set -eu
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
dir=${1:?usage: erofs-utils.sh DIR}
mkdir -p "$dir/root" "$dir/bin"
dir=$(cd "$dir" && pwd)
curl -fsS "$mirror/dists/trixie/main/binary-amd64/Packages.xz" | xz -dc >"$dir/Packages"
for package in erofs-utils libc6 libzstd1 liblz4-1 libdeflate0 liblzma5 libselinux1 libuuid1 libpcre2-8-0 zlib1g libxxhash0; do
    path=$(awk -v p="$package" '$1=="Package:"{on=($2==p)} on&&$1=="Filename:"{print $2; exit}' "$dir/Packages")
    sum=$(awk -v p="$package" '$1=="Package:"{on=($2==p)} on&&$1=="SHA256:"{print $2; exit}' "$dir/Packages")
    curl -fsS -o "$dir/$package.deb" "$mirror/$path"
    echo "$sum  $dir/$package.deb" | sha256sum -c --quiet
    dpkg-deb -x "$dir/$package.deb" "$dir/root"
done
libraries=$dir/root/usr/lib/x86_64-linux-gnu
for tool in fsck.erofs mkfs.erofs dump.erofs; do
    printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' \
        "$libraries/ld-linux-x86-64.so.2" "$libraries" "$dir/root/usr/bin/$tool" >"$dir/bin/$tool"
    chmod +x "$dir/bin/$tool"
done
