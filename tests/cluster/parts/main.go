// One program that is kubelet, kube-proxy or kube-scheduler, by the name it is called by. The other parts of Kubernetes
// are built by tests/kube.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var roles = map[string]func() *cobra.Command{
	"kubelet":        func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"kube-proxy":     proxy.NewProxyCommand,
	"kube-scheduler": func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

const unusable = 64 // EX_USAGE of sysexits.h

func main() {
	name := filepath.Base(os.Args[0])
	command, known := roles[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s is none of kubelet, kube-proxy, kube-scheduler\n", name)
		os.Exit(unusable)
	}
	os.Exit(cli.Run(command()))
}
