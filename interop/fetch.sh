#!/bin/sh
# Downloads what the tests need, unless it is there: Keycloak with Maven into .cache, the node packages, the Go modules.
# If something is not available, the last line says what, and the exit status is 1.
set -eu
cd "$(dirname "$0")"
version=${KEYCLOAK_VERSION:-26.7.3}

for tool in go java mvn node npm curl openssl; do
	if ! command -v $tool >/dev/null; then
		echo "$tool is not installed"
		exit 1
	fi
done

if [ ! -f .cache/keycloak/built-tls-$version ]; then
	rm -rf .cache/unpacked
	mkdir -p .cache/unpacked
	echo "fetching Keycloak $version"
	# There is no pom, so the full name pins the version of the plugin. It leaves a folder with marker files where it runs.
	plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
	artifact=org.keycloak:keycloak-quarkus-dist:$version:zip
	if ! { mvn -B -q $plugin:get -Dartifact="$artifact" -Dtransitive=false &&
		(cd .cache/unpacked && mvn -B -q $plugin:unpack -Dartifact="$artifact" -DoutputDirectory="$PWD"); } >.cache/mvn.log 2>&1; then
		cat .cache/mvn.log
		echo "mvn cannot download $artifact"
		exit 1
	fi
	rm -rf .cache/keycloak
	mv ".cache/unpacked/keycloak-$version" .cache/keycloak
	rm -r .cache/unpacked
	chmod +x .cache/keycloak/bin/kc.sh
	if ! .cache/keycloak/bin/kc.sh build --db=dev-file --https-client-auth=request >.cache/build.log 2>&1; then
		cat .cache/build.log
		echo "Keycloak $version cannot be built with $(java -version 2>&1 | head -1)"
		exit 1
	fi
	touch .cache/keycloak/built-tls-$version
fi

for dir in oidc-provider clients; do
	if [ ! -d $dir/node_modules ] || [ $dir/package-lock.json -nt $dir/node_modules ]; then
		if ! (cd $dir && npm ci --no-audit --no-fund --ignore-scripts --silent); then
			echo "npm cannot download the packages of $dir"
			exit 1
		fi
		touch $dir/node_modules
	fi
done

if ! go mod download; then
	echo "go cannot download the modules"
	exit 1
fi
