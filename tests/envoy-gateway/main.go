// Runs Envoy Gateway's own code without a cluster.
//
//	envoy-gateway validate RESOURCES
//	envoy-gateway serve FOLDER RESOURCES
//
// RESOURCES is a file with Kubernetes resources in YAML. `validate` is `egctl experimental validate` with an exit
// status: it prints what is wrong with each resource.
//
// `serve` pulls the module of the resources into FOLDER, serves the module and xDS on loopback, and prints one line
// of JSON: both ports, the command line of the proxy, and the status that each resource gets. For each line on
// standard input, the name of another such file, it does the same again for the same proxy. It ends with its input.
//
// The path of this Go module lets it import Envoy Gateway's internal packages.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	xds "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	envoygateway "github.com/envoyproxy/gateway/api/v1alpha1"
	"github.com/envoyproxy/gateway/internal/gatewayapi"
	"github.com/envoyproxy/gateway/internal/gatewayapi/resource"
	"github.com/envoyproxy/gateway/internal/infrastructure/common"
	"github.com/envoyproxy/gateway/internal/ir"
	"github.com/envoyproxy/gateway/internal/logging"
	"github.com/envoyproxy/gateway/internal/wasm"
	"github.com/envoyproxy/gateway/internal/xds/bootstrap"
	"github.com/envoyproxy/gateway/internal/xds/cache"
	"github.com/envoyproxy/gateway/internal/xds/translator"
)

const (
	loopback            = "127.0.0.1"
	controllerNamespace = "envoy-gateway-system"
)

// published is what the program prints for a file.
type published struct {
	XdsPort   int            `json:"xds_port"`
	WasmPort  int            `json:"wasm_port"`
	Arguments []string       `json:"arguments"`
	Statuses  map[string]any `json:"statuses"`
}

type server struct {
	log      logging.Logger
	modules  *wasm.HTTPServer
	cache    cache.SnapshotCacheWithCallbacks
	wasmPort int
	xdsPort  int
}

func main() {
	err := errors.New("usage: envoy-gateway validate RESOURCES | serve FOLDER RESOURCES")
	switch {
	case len(os.Args) == 3 && os.Args[1] == "validate":
		err = validate(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "serve":
		err = serve(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// validate checks each resource by its schema and rules, as `internal/cmd/egctl/validate.go` does.
func validate(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var found []error
	err = resource.IterYAMLBytes(text, func(one []byte) error {
		_, err := resource.LoadResourcesFromYAMLBytes(one, false, nil)
		found = append(found, err)
		return nil
	})
	return errors.Join(append(found, err)...)
}

func serve(folder, file string) error {
	s, err := start(folder)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for {
		answer, err := s.publish(file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
			return err
		}
		if !lines.Scan() {
			return lines.Err()
		}
		file = lines.Text()
	}
}

// start listens for proxies, which get nothing yet.
func start(folder string) (*server, error) {
	log := logging.DefaultLogger(os.Stderr, envoygateway.LogLevelInfo)
	modules := wasm.NewHTTPServerWithFileCache(
		wasm.ServerOptions{Salt: []byte("salt")}, wasm.CacheOptions{CacheDir: folder}, controllerNamespace, log)
	wasmListener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, err
	}
	xdsListener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		return nil, err
	}
	snapshots := cache.NewSnapshotCache(true, log)
	proxies := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(proxies, xds.NewServer(context.Background(), snapshots, snapshots))
	// Envoy Gateway's own ports are fixed; these are free ones.
	go func() { log.Error(http.Serve(wasmListener, modules), "no modules are served") }()
	go func() { log.Error(proxies.Serve(xdsListener), "no xDS is served") }()
	return &server{log, modules, snapshots, port(wasmListener), port(xdsListener)}, nil
}

// publish gives the proxy what Envoy Gateway makes of the resources in a file.
func (s *server) publish(file string) (*published, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	resources, err := resource.LoadResourcesFromYAMLBytes(text, false, nil)
	if err != nil {
		return nil, err
	}
	// What follows is the order of Envoy Gateway's runners, which it runs in a cluster.
	if proxy := resources.EnvoyProxyForGatewayClass; proxy != nil && resources.GatewayClass.Spec.ParametersRef == nil {
		resources.EnvoyProxyForGatewayClass = nil
		resources.EnvoyProxiesForGateways = append(resources.EnvoyProxiesForGateways, proxy)
	}
	toIR := &gatewayapi.Translator{
		GatewayControllerName: string(resources.GatewayClass.Spec.ControllerName),
		GatewayClassName:      gateway.ObjectName(resources.GatewayClass.Name),
		ControllerNamespace:   controllerNamespace,
		// Endpoints are the addresses of services, since files have no EndpointSlices.
		EndpointRoutingDisabled: true,
		WasmCache:               s.modules,
		Logger:                  s.log,
	}
	result, err := toIR.Translate(context.Background(), resources)
	if err != nil {
		// As Envoy Gateway does: the result is what could be translated.
		s.log.Error(err, "errors detected during translation")
	}
	if len(result.XdsIR) != 1 {
		return nil, fmt.Errorf("expected resources of one proxy, but found those of %d", len(result.XdsIR))
	}
	answer := &published{XdsPort: s.xdsPort, WasmPort: s.wasmPort, Statuses: statuses(result)}
	for key, proxy := range result.XdsIR {
		if answer.Arguments, err = s.arguments(result.InfraIR[key].Proxy); err != nil {
			return nil, err
		}
		if err := s.translate(key, proxy); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

func (s *server) translate(key string, proxy *ir.Xds) error {
	for _, listener := range proxy.HTTP {
		listener.Address = loopback
	}
	toXds := &translator.Translator{
		ControllerNamespace: controllerNamespace,
		FilterOrder:         proxy.FilterOrder,
		Logger:              s.log,
	}
	table, err := toXds.Translate(context.Background(), proxy)
	if err != nil {
		return err
	}
	return s.cache.GenerateNewSnapshot(key, table.XdsResources, context.Background())
}

// arguments returns the command line of the proxy, in which is its bootstrap.
func (s *server) arguments(proxy *ir.ProxyInfra) ([]string, error) {
	if proxy.Config == nil {
		return nil, errors.New("expected an EnvoyProxy of the gateway, but found none")
	}
	host, xdsPort := loopback, int32(s.xdsPort)
	// As Envoy Gateway does outside of Kubernetes: no listener for Prometheus, and no zones.
	noPrometheus := &envoygateway.ProxyPrometheusProvider{Disable: true}
	return common.BuildProxyArgs(proxy, nil, &bootstrap.RenderBootstrapConfigOptions{
		ProxyMetrics:             &envoygateway.ProxyMetrics{Prometheus: noPrometheus},
		TopologyInjectorDisabled: true,
		XdsServerHost:            &host,
		XdsServerPort:            &xdsPort,
	}, "proxy", false)
}

// statuses returns the status of each resource, by kind and name.
func statuses(result *gatewayapi.TranslateResult) map[string]any {
	found := map[string]any{}
	for _, it := range result.EnvoyExtensionPolicies {
		found[it.Kind+"/"+it.Name] = it.Status
	}
	for _, it := range result.Gateways {
		found[it.Kind+"/"+it.Name] = it.Status
	}
	for _, it := range result.HTTPRoutes {
		found[it.Kind+"/"+it.Name] = it.Status
	}
	for _, it := range result.EnvoyProxiesForGateways {
		found[it.Kind+"/"+it.Name] = it.Status
	}
	return found
}

func port(listener net.Listener) int {
	return listener.Addr().(*net.TCPAddr).Port
}
