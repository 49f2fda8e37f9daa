// Package browser contains only tests. They use the page of "koreauth issuer" in
// Chromium, with the mouse and with the keyboard alone.
//
//	npm ci                              # once, for axe-core; without it one test is skipped
//	go test .                           # needs chromium
//	go test . -screenshots /tmp/shots   # writes pictures of the page to this folder
package browser
