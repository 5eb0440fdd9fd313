package main

import (
	"strings"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	shimv2 "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/terraform-providers/terraform-provider-docker/shim"
)

// dockerVersion is the pulumi-docker SDK's version.
const dockerVersion = "5.2.0"

// dockerMember is the token of a resource or function of pulumi-docker's only module.
func dockerMember(name string) tokens.ModuleMember {
	file := strings.ToLower(name[:1]) + name[1:]
	return tokens.ModuleMember("docker:index/" + file + ":" + name)
}

func dockerResource(name string) *tfbridge.ResourceInfo {
	return &tfbridge.ResourceInfo{Tok: tokens.Type(dockerMember(name))}
}

func dockerFunction(name string) *tfbridge.DataSourceInfo {
	return &tfbridge.DataSourceInfo{Tok: dockerMember(name)}
}

// dockerProvider describes kreuzwerker's provider under pulumi-docker's names.
// pulumi-docker's Image is the SDK's one resource that is missing: it is
// Pulumi's own code, not the Terraform provider's; RemoteImage builds as well.
func dockerProvider() tfbridge.ProviderInfo {
	container := dockerResource("Container")
	container.DeleteBeforeReplace = true // names and ports can't be held twice
	container.Fields = map[string]*tfbridge.SchemaInfo{
		"command":           {Name: "command"},
		"networks_advanced": {Name: "networksAdvanced"},
	}
	return tfbridge.ProviderInfo{
		P:       shimv2.NewProvider(shim.NewProvider()),
		Name:    "docker",
		Version: dockerVersion,
		Config: map[string]*tfbridge.SchemaInfo{
			"host": {Default: &tfbridge.DefaultInfo{
				EnvVars: []string{"DOCKER_HOST"},
				Value:   "unix:///var/run/docker.sock",
			}},
			"registry_auth": {Name: "registryAuth", MaxItemsOne: tfbridge.False()},
		},
		Resources: map[string]*tfbridge.ResourceInfo{
			"docker_buildx_builder": dockerResource("BuildxBuilder"),
			"docker_config":         dockerResource("ServiceConfig"),
			"docker_container":      container,
			"docker_image":          dockerResource("RemoteImage"),
			"docker_network":        dockerResource("Network"),
			"docker_plugin":         dockerResource("Plugin"),
			"docker_registry_image": dockerResource("RegistryImage"),
			"docker_secret":         dockerResource("Secret"),
			"docker_service":        dockerResource("Service"),
			"docker_tag":            dockerResource("Tag"),
			"docker_volume":         dockerResource("Volume"),
		},
		DataSources: map[string]*tfbridge.DataSourceInfo{
			"docker_image":                    dockerFunction("getRemoteImage"),
			"docker_logs":                     dockerFunction("getLogs"),
			"docker_network":                  dockerFunction("getNetwork"),
			"docker_plugin":                   dockerFunction("getPlugin"),
			"docker_registry_image":           dockerFunction("getRegistryImage"),
			"docker_registry_image_manifests": dockerFunction("getRegistryImageManifests"),
		},
	}
}

func serveDocker() {
	tfbridge.Main("docker", dockerVersion, dockerProvider(), schema("docker", dockerVersion))
}
