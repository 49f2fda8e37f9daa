#!/bin/sh
# Starts and stops the Keycloak that fetch.sh downloaded. "start" returns when the realm responds, "stop" when the process has
# ended. The database is kept, so that a second start has the same keys.
set -eu
home=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/.cache/keycloak
tls=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/.cache/tls
url=http://127.0.0.1:$KEYCLOAK_PORT

# The pid of an old file may belong to another process by now.
running() {
	[ -f "$home/pid" ] && ps -o args= -p "$(cat "$home/pid")" | grep -q "$home/bin/kc.sh"
}

case $1 in
start)
	# The realm files take the clients' secret from the environment. The administrator has the same one.
	export KC_BOOTSTRAP_ADMIN_CLIENT_ID=interop KC_BOOTSTRAP_ADMIN_CLIENT_SECRET="$KORE_CLIENT_SECRET"
	# The server runs only for minutes, so it needs a small heap and no second compiler.
	export JAVA_OPTS_KC_HEAP='-Xms64m -Xmx512m' JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1
	nohup "$home/bin/kc.sh" start --optimized --import-realm --http-enabled=true --http-host=127.0.0.1 \
		--http-port="$KEYCLOAK_PORT" --http-management-scheme=inherited --hostname="$url" --cache=local \
		--https-port="$KEYCLOAK_TLS_PORT" --https-certificate-file="$tls/server.pem" --https-certificate-key-file="$tls/server.key" \
		--truststore-paths="$tls/client.pem,$tls/other.pem" \
		>>"$home/log" 2>&1 </dev/null &
	echo $! >"$home/pid"
	tries=600
	until curl -fs -o /dev/null "$url/realms/KORE-CIDP"; do
		tries=$((tries - 1))
		if [ $tries -eq 0 ] || ! running; then
			tail -20 "$home/log" >&2
			exit 1
		fi
		sleep 0.3
	done
	;;
stop)
	running || exit 0
	kill "$(cat "$home/pid")"
	tries=600
	while running; do
		tries=$((tries - 1))
		if [ $tries -eq 0 ]; then
			echo "Keycloak did not stop: process $(cat "$home/pid")" >&2
			exit 1
		fi
		sleep 0.1
	done
	rm "$home/pid"
	;;
*)
	echo "usage: server.sh start|stop" >&2
	exit 2
	;;
esac
