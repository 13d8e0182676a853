// Fetches a module as Istio's agent does, and prints the manifest's digest and the module's SHA-256 sum.
//
//	fetch REGISTRY/NAME:TAG
//
// Credentials come from Docker's configuration, as they do in the agent without a pull secret.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"

	"istio.io/istio/pkg/wasm"
)

func main() {
	if len(os.Args) != 2 {
		fail("usage: fetch REGISTRY/NAME:TAG")
	}
	fetcher := wasm.NewImageFetcher(context.Background(), wasm.ImageFetcherOption{})
	fetch, digest, err := fetcher.PrepareFetch(os.Args[1])
	if err != nil {
		fail(err)
	}
	module, err := fetch()
	if err != nil {
		fail(err)
	}
	fmt.Printf("sha256:%s\n%x\n", digest, sha256.Sum256(module))
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
