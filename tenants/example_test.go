package tenants_test

import (
	"context"
	"fmt"
	"log"

	"github.com/koreauth/koreauth"
	"github.com/koreauth/koreauth/koretest"
	"github.com/koreauth/koreauth/tenants"
)

func ExampleSet() {
	issuer, err := koretest.NewIssuer(&koretest.Options{URL: "https://acme.id.example.com"})
	if err != nil {
		log.Fatal(err)
	}
	set := &tenants.Set{
		Match: "https://{tenant}.id.example.com/realms/KORE-CIDP",
		Resolve: func(_ context.Context, name string) (koreauth.Config, error) {
			if name != "https://acme.id.example.com/realms/KORE-CIDP" {
				return koreauth.Config{}, koreauth.ErrIssuer // not a customer
			}
			return koreauth.Config{Audience: []string{koretest.Audience}, HTTPClient: issuer.HTTPClient()}, nil
		},
	}
	if err := set.Faults(); err != nil {
		log.Fatal(err)
	}
	claims, err := set.Validate(context.Background(), issuer.Valid())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.Issuer)
	// Output: https://acme.id.example.com/realms/KORE-CIDP
}
