package devissuer_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/koreauth/koreauth/cmd/koreauth/internal/devissuer"
	"github.com/koreauth/koreauth/koretest"
)

func ExampleNew() {
	key, err := koretest.NewKey("ES256")
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := devissuer.New("http://localhost:8081", []*koretest.Key{key})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("client:", issuer.Client().ID)
	for _, host := range []string{"localhost:8081", "rebound.example:8081"} {
		w := httptest.NewRecorder()
		issuer.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://"+host+"/", nil))
		fmt.Println(host, w.Code)
	}
	// Output:
	// client: kc_demo
	// localhost:8081 200
	// rebound.example:8081 403
}

func ExampleRun() {
	err := devissuer.Run(context.Background(), "0.0.0.0:8081", "keys.pem", os.Stdout)
	fmt.Println(err)
	fmt.Println(errors.Is(err, devissuer.ErrAddr))
	// Output:
	// devissuer: the address must be on loopback: anyone who reaches "0.0.0.0:8081" could make tokens: use 127.0.0.1:8081
	// true
}
