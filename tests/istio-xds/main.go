// Serves Istio's own xDS for a mesh that files describe, without a cluster.
//
//	istio-xds MESH_CONFIG RESOURCES
//
// RESOURCES is a file with Istio's resources in YAML. The program prints its port once the mesh has them.
// For each line on standard input, the name of another such file, it makes the mesh have the resources of
// that file and no others, and prints the name again. It ends with its input.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"time"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	xdsserver "istio.io/istio/pilot/pkg/xds"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/test"
)

// program stands in for a test: a failure ends the program.
type program struct{}

func (p *program) Fail()                     { p.Fatal("failed") }
func (p *program) FailNow()                  { p.Fatal("failed") }
func (p *program) Fatal(args ...any)         { fmt.Fprintln(os.Stderr, args...); os.Exit(1) }
func (p *program) Fatalf(f string, a ...any) { p.Fatal(fmt.Sprintf(f, a...)) }
func (p *program) Log(args ...any)           { fmt.Fprintln(os.Stderr, args...) }
func (p *program) Logf(f string, a ...any)   { p.Log(fmt.Sprintf(f, a...)) }
func (p *program) TempDir() string           { return os.TempDir() }
func (p *program) Helper()                   {}
func (p *program) Cleanup(func())            {} // The end of the program is the end of all of it.
func (p *program) Skip(args ...any)          { p.Fatal(args...) }

var _ test.Failer = &program{}

func main() {
	p := &program{}
	if len(os.Args) != 3 {
		p.Fatal("usage: istio-xds MESH_CONFIG RESOURCES")
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		p.Fatal(err)
	}
	logs := log.DefaultOptions()
	logs.OutputPaths = []string{"stderr"}
	if err := log.Configure(logs); err != nil {
		p.Fatal(err)
	}
	meshConfig, err := mesh.ApplyMeshConfigDefaults(string(text))
	if err != nil {
		p.Fatal(err)
	}
	first, err := read(os.Args[2])
	if err != nil {
		p.Fatal(os.Args[2]+":", err)
	}
	server := xds.NewFakeDiscoveryServer(p, xds.FakeOptions{
		MeshConfig:      meshConfig,
		Configs:         first,
		ListenerBuilder: func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
	})
	held := map[string]config.Config{}
	for _, it := range first {
		held[it.Key()] = *server.Store().Get(it.GroupVersionKind, it.Name, it.Namespace)
	}
	settle(server.Discovery)
	fmt.Println(server.Listener.Addr().(*net.TCPAddr).Port)

	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := apply(server, held, lines.Text()); err != nil {
			p.Fatal(lines.Text()+":", err)
		}
		fmt.Println(lines.Text())
	}
}

// read returns the resources of a file.
func read(file string) ([]config.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	resources, others, err := crd.ParseInputs(string(text))
	if err == nil && len(others) > 0 {
		err = fmt.Errorf("expected Istio's resources, but found %v", others[0])
	}
	return resources, err
}

// apply creates, updates and deletes resources until the mesh has those of the file.
func apply(server *xds.FakeDiscoveryServer, held map[string]config.Config, file string) error {
	wanted, err := read(file)
	if err != nil {
		return err
	}
	gone := map[string]config.Config{}
	for key, it := range held {
		gone[key] = it
	}
	store := server.Store()
	for _, it := range wanted {
		key := it.Key()
		former, exists := held[key]
		it.ResourceVersion = former.ResourceVersion
		if exists && it.Equals(&former) {
			delete(gone, key)
			continue
		}
		if exists {
			if it.ResourceVersion, err = store.Update(it); err != nil {
				return err
			}
		} else if it.ResourceVersion, err = store.Create(it); err != nil {
			return err
		}
		held[key] = it
		delete(gone, key)
	}
	for key, it := range gone {
		if err := store.Delete(it.GroupVersionKind, it.Name, it.Namespace, nil); err != nil {
			return err
		}
		delete(held, key)
	}
	settle(server.Discovery)
	return nil
}

// settle waits until what was changed is in the state that new proxies get.
func settle(server *xdsserver.DiscoveryServer) {
	for quiet := 0; quiet < 5; quiet++ {
		before := server.InboundUpdates.Load()
		time.Sleep(20 * time.Millisecond)
		if server.InboundUpdates.Load() != before || server.CommittedUpdates.Load() < before {
			quiet = 0
		}
	}
}
