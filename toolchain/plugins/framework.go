package main

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/provider"
	tlsshim "github.com/hashicorp/terraform-provider-tls/shim"
	pfbridge "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/pf/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge/tokens"
	randomshim "github.com/terraform-providers/terraform-provider-random/shim"
)

// Versions of the pulumi-random and pulumi-tls SDKs.
const (
	randomVersion = "4.21.4"
	tlsVersion    = "5.6.2"
)

// frameworkProvider describes a provider built on Terraform's plugin framework.
// A resource called <name>_<thing> becomes <prefix><Thing>.
func frameworkProvider(upstream provider.Provider, name, version, prefix string) tfbridge.ProviderInfo {
	info := tfbridge.ProviderInfo{
		P:            pfbridge.ShimProvider(upstream),
		Name:         name,
		Version:      version,
		MetadataInfo: tfbridge.NewProviderMetadata([]byte("{}")),
	}
	standard := tokens.MakeStandard(name)
	info.MustComputeTokens(tokens.SingleModule(name+"_", "index", func(module, member string) (string, error) {
		return standard(module, prefix+member)
	}))
	return info
}

func randomProvider() tfbridge.ProviderInfo {
	return frameworkProvider(randomshim.NewProvider(), "random", randomVersion, "Random")
}

func tlsProvider() tfbridge.ProviderInfo {
	return frameworkProvider(tlsshim.NewProvider(), "tls", tlsVersion, "")
}

func serveFramework(info tfbridge.ProviderInfo) {
	pfbridge.Main(context.Background(), info.Name, info, pfbridge.ProviderMetadata{
		PackageSchema:  schema(info.Name, info.Version),
		BridgeMetadata: []byte("{}"),
	})
}

func serveRandom() { serveFramework(randomProvider()) }

func serveTLS() { serveFramework(tlsProvider()) }
