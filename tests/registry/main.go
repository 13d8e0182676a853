// Serves an OCI registry in memory, on loopback, and prints its port. It ends with its standard input.
//
//	registry [USER PASSWORD REALM]
//
// With a user, every request needs basic authentication.
package main

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	switch len(os.Args) {
	case 1:
	case 4:
		handler = authenticated(handler, os.Args[1], os.Args[2], os.Args[3])
	default:
		log.Fatal("usage: registry [USER PASSWORD REALM]")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(http.Serve(listener, handler))
}

// authenticated answers 401 to requests without the credential.
func authenticated(handler http.Handler, user, password, realm string) http.Handler {
	equal := func(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); ok && equal(u, user) && equal(p, password) {
			handler.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", realm))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintln(w, `{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}`)
	})
}
