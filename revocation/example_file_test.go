package revocation_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/koreauth/koreauth/revocation"
)

// All processes of one machine that use the same path have the same rules.
func ExampleFile() {
	folder, err := os.MkdirTemp("", "revocation")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "revoked.log")

	// In a process that revokes tokens:
	receipt, err := revocation.File(path).Append(context.Background(), revocation.Rule{
		Issuer: "https://keycloak.example.com/realms/KORE-CIDP",
		Client: "kc_1",
		Reason: "its secret leaked",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("appended rule", receipt.Seq)

	// In a process that accepts tokens, and has the list in koreauth.Config.Require:
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	list := &revocation.List{}
	go list.Follow(ctx, revocation.File(path))
	for range time.Tick(time.Millisecond) {
		if !list.Status().Current.IsZero() {
			break
		}
	}
	fmt.Println("the list has", list.Status().Entries, "rule")
	// Output:
	// appended rule 1
	// the list has 1 rule
}
