#!/bin/sh
# Fetches once what the run needs: Keycloak by Maven into .cache, the node packages, the Go modules.
# Where something cannot be had it says so in its last line and exits 1.
set -eu
cd "$(dirname "$0")"
version=${KEYCLOAK_VERSION:-26.7.3}

for tool in go java mvn node npm curl; do
	if ! command -v $tool >/dev/null; then
		echo "no $tool on this machine"
		exit 1
	fi
done

if [ ! -f .cache/keycloak/built-$version ]; then
	rm -rf .cache/unpacked
	mkdir -p .cache/unpacked
	echo "fetching Keycloak $version"
	# No pom here: the plugin is named in full, so that its version is pinned too. It leaves a folder of markers where it runs.
	plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
	artifact=org.keycloak:keycloak-quarkus-dist:$version:zip
	if ! { mvn -B -q $plugin:get -Dartifact="$artifact" -Dtransitive=false &&
		(cd .cache/unpacked && mvn -B -q $plugin:unpack -Dartifact="$artifact" -DoutputDirectory="$PWD"); } >.cache/mvn.log 2>&1; then
		cat .cache/mvn.log
		echo "mvn cannot get $artifact"
		exit 1
	fi
	rm -rf .cache/keycloak
	mv ".cache/unpacked/keycloak-$version" .cache/keycloak
	rm -r .cache/unpacked
	chmod +x .cache/keycloak/bin/kc.sh
	if ! .cache/keycloak/bin/kc.sh build --db=dev-file >.cache/build.log 2>&1; then
		cat .cache/build.log
		echo "Keycloak $version cannot be built with $(java -version 2>&1 | head -1)"
		exit 1
	fi
	touch .cache/keycloak/built-$version
fi

for dir in oidc-provider clients; do
	if [ ! -d $dir/node_modules ] || [ $dir/package-lock.json -nt $dir/node_modules ]; then
		if ! (cd $dir && npm ci --no-audit --no-fund --ignore-scripts --silent); then
			echo "npm cannot get the packages of $dir"
			exit 1
		fi
		touch $dir/node_modules
	fi
done

if ! go mod download; then
	echo "go cannot get the modules"
	exit 1
fi
