package revocationtest

import "time"

// LosePatience makes tests that must fail do so sooner.
func LosePatience() { patience = 3 * time.Second }
