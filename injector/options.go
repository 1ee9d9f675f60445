// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/multus-vpc/multus-vpc/internal/certs"
	"github.com/multus-vpc/multus-vpc/internal/inject"
	"github.com/multus-vpc/multus-vpc/internal/kube"
)

// options are the injector's flags. Each has an environment variable as its default.
type options struct {
	listen         string
	metricsAddress string
	linger         time.Duration
	logLevel       slog.Level
	kube           kube.Config
	inject         inject.Config

	certDir       string // of cert-manager; empty: certificates are our own
	certs         certs.Config
	namespace     string
	secret        string
	configuration string
}

const usage = `injector is a mutating admission webhook: it adds an init container or a sidecar of multus-vpc to pods that ask for one by the
annotation multus-vpc.io/sync (init, sidecar, native or none), on the pod or on a NetworkAttachmentDefinition that it uses.

It makes and renews its certificate by itself, in --secret and --webhook, unless --cert-dir says where somebody else does.

Flags (environment variable):
`

// reader reads flags whose defaults come from the environment, and collects what is wrong.
type reader struct {
	fs     *flag.FlagSet
	getenv func(string) string
	errs   []error
}

func (r *reader) text(name, env, def, use string) *string {
	if v := r.getenv(env); v != "" {
		def = v
	}
	return r.fs.String(name, def, fmt.Sprintf("%s (%s)", use, env))
}

func (r *reader) wrong(name, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("--%s: %w", name, fmt.Errorf(format, args...)))
}

func (r *reader) duration(name, text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		r.wrong(name, "%q is no duration, as in 10m or 24h", text)
	}
	return d
}

// parseOptions reads flags and environment, and reports everything that is wrong with them at once.
func parseOptions(args []string, getenv func(string) string, stderr io.Writer) (options, error) {
	r := &reader{fs: flag.NewFlagSet("injector", flag.ContinueOnError), getenv: getenv}
	r.fs.SetOutput(io.Discard) // an error is told once, by run
	o := options{certs: certs.DefaultConfig()}
	image := r.text("image", "MULTUS_VPC_IMAGE", "", "`image` of the containers that are added; has /initcontainer and /sidecar")
	pull := r.text("image-pull-policy", "MULTUS_VPC_IMAGE_PULL_POLICY", string(corev1.PullIfNotPresent), "Always, IfNotPresent or Never")
	via := r.text("via", "MULTUS_VPC_VIA", string(inject.ViaAgent), "how pods reach EC2 that do not say it themselves: agent (its sync socket, a hostPath volume) or ec2 (with the pod's own role)")
	syncDir := r.text("sync-dir", "MULTUS_VPC_SYNC_DIR", "/run/multus-vpc/sync", "`folder` of the node agent's sync socket, on the node and in the pod")
	env := r.text("env", "MULTUS_VPC_POD_ENV", "", "`variables` for the containers, as in AWS_REGION=us-west-2,HTTPS_PROXY=…, or one to a line; pods that do not reach the instance metadata need AWS_REGION")
	cpu := r.text("cpu-request", "MULTUS_VPC_CPU_REQUEST", "10m", "CPU that the containers request")
	cpuLimit := r.text("cpu-limit", "MULTUS_VPC_CPU_LIMIT", "0", "CPU that the containers may use; 0 sets no limit but in pods of the QoS class Guaranteed")
	memory := r.text("memory-request", "MULTUS_VPC_MEMORY_REQUEST", "32Mi", "memory that the containers request")
	limit := r.text("memory-limit", "MULTUS_VPC_MEMORY_LIMIT", "64Mi", "memory that the containers may use; 0 sets no limit")
	listen := r.text("listen", "MULTUS_VPC_LISTEN", ":8443", "`address` of the webhook")
	metrics := r.text("metrics-address", "MULTUS_VPC_METRICS_ADDRESS", ":61692", "`address` of /metrics, /healthz and /readyz")
	linger := r.text("linger", "MULTUS_VPC_LINGER", "5s", "how `long` to serve on after SIGTERM, until no API server calls this replica any more")
	dir := r.text("cert-dir", "MULTUS_VPC_CERT_DIR", "", "`folder` with tls.crt and tls.key that somebody else renews; empty means that the injector does")
	namespace := r.text("namespace", "POD_NAMESPACE", "multus-vpc", "the injector's own `namespace`")
	secret := r.text("secret", "MULTUS_VPC_SECRET", "multus-vpc-injector", "`name` of the Secret of the certificates")
	configuration := r.text("webhook", "MULTUS_VPC_WEBHOOK", "multus-vpc-injector", "`name` of the MutatingWebhookConfiguration")
	hosts := r.text("hosts", "MULTUS_VPC_HOSTS", "", "`names` by which the API server calls the webhook; default: multus-vpc-injector.NAMESPACE.svc")
	validity := r.text("cert-validity", "MULTUS_VPC_CERT_VALIDITY", o.certs.Validity.String(), "how `long` the webhook's certificate lasts")
	authority := r.text("authority-validity", "MULTUS_VPC_AUTHORITY_VALIDITY", o.certs.AuthorityValidity.String(), "how `long` the authority lasts that signs it")
	delay := r.text("cert-delay", "MULTUS_VPC_CERT_DELAY", o.certs.Delay.String(), "how `long` a new authority is published before it signs, and an old one after it did")
	interval := r.text("cert-interval", "MULTUS_VPC_CERT_INTERVAL", o.certs.Interval.String(), "how `often` to look at the certificates")
	kubeconfig := r.text("kubeconfig", "KUBECONFIG", "", "`file` to reach the Kubernetes API with; empty means as this pod's service account")
	level := r.text("log-level", "MULTUS_VPC_LOG_LEVEL", "info", "debug, info, warn or error")
	if err := r.fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, usage)
			r.fs.SetOutput(stderr)
			r.fs.PrintDefaults()
		}
		return options{}, err
	}
	if r.fs.NArg() > 0 {
		r.errs = append(r.errs, fmt.Errorf("unexpected argument %q: the injector takes flags only", r.fs.Arg(0)))
	}
	o.listen, o.metricsAddress, o.linger = *listen, *metrics, r.duration("linger", *linger)
	o.inject = inject.Config{
		Image: *image, PullPolicy: corev1.PullPolicy(*pull), Via: inject.Via(*via), SyncDir: *syncDir,
		Env: r.variables("env", *env), Resources: r.resources(*cpu, *cpuLimit, *memory, *limit),
	}
	r.check(o.inject)
	o.certDir, o.namespace, o.secret, o.configuration = *dir, *namespace, *secret, *configuration
	o.certs.Validity, o.certs.AuthorityValidity = r.duration("cert-validity", *validity), r.duration("authority-validity", *authority)
	o.certs.Delay, o.certs.Interval = r.duration("cert-delay", *delay), r.duration("cert-interval", *interval)
	o.certs.Hosts = strings.FieldsFunc(*hosts, func(c rune) bool { return c == ',' || c == ' ' })
	if len(o.certs.Hosts) == 0 {
		o.certs.Hosts = []string{"multus-vpc-injector." + *namespace + ".svc"}
	}
	if err := o.certs.Validate(); err != nil && len(r.errs) == 0 {
		r.errs = append(r.errs, err)
	}
	o.kube.Kubeconfig, o.kube.ServiceHost, o.kube.ServicePort = *kubeconfig, getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if err := o.logLevel.UnmarshalText([]byte(*level)); err != nil {
		r.wrong("log-level", "%q is not debug, info, warn or error", *level)
	}
	return o, errors.Join(r.errs...)
}

// check reports what no pod could be made with.
func (r *reader) check(c inject.Config) {
	if c.Image == "" || strings.TrimSpace(c.Image) != c.Image {
		r.wrong("image", "must name an image, not %q", c.Image)
	}
	if policies := []corev1.PullPolicy{corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever}; !slices.Contains(policies, c.PullPolicy) {
		r.wrong("image-pull-policy", "%q is not Always, IfNotPresent or Never", c.PullPolicy)
	}
	if c.Via != inject.ViaAgent && c.Via != inject.ViaEC2 {
		r.wrong("via", "%q is not agent or ec2", c.Via)
	}
	if !path.IsAbs(c.SyncDir) || path.Clean(c.SyncDir) != c.SyncDir || strings.Contains(c.SyncDir, ":") {
		r.wrong("sync-dir", "%q is no absolute path of a folder", c.SyncDir)
	}
}

// variables reads NAME=VALUE,…. What follows a comma and has no name belongs to the value before, as in a NO_PROXY. Text of several
// lines has one variable on each, as the chart writes them: whatever a value has of commas is its own.
func (r *reader) variables(name, text string) (env []corev1.EnvVar) {
	separator := ","
	if strings.Contains(text, "\n") {
		separator = "\n"
	}
	for item := range strings.SplitSeq(text, separator) {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		key, value, named := strings.Cut(item, "=")
		switch wrong := validation.IsEnvVarName(key); {
		case named && len(wrong) > 0: // the API would refuse every pod
			r.wrong(name, "%q is no name of a variable: %s", key, wrong[0])
		case named:
			env = append(env, corev1.EnvVar{Name: key, Value: value})
		case separator == "," && len(env) > 0:
			env[len(env)-1].Value += "," + item
		default:
			r.wrong(name, "%q is not of the form NAME=VALUE", item)
		}
	}
	return env
}

// resources reads quantities.
func (r *reader) resources(cpu, cpuLimit, memory, memoryLimit string) corev1.ResourceRequirements {
	quantity := func(flag, text string) resource.Quantity {
		q, err := resource.ParseQuantity(text)
		if err != nil || q.Sign() < 0 {
			r.wrong(flag, "%q is no quantity, as in 10m or 64Mi", text)
		}
		return q
	}
	result := corev1.ResourceRequirements{Requests: corev1.ResourceList{}}
	for _, kind := range []struct {
		name                       corev1.ResourceName
		request, limit, flag, most string
	}{
		{corev1.ResourceCPU, cpu, cpuLimit, "cpu-request", "cpu-limit"},
		{corev1.ResourceMemory, memory, memoryLimit, "memory-request", "memory-limit"},
	} {
		least, most := quantity(kind.flag, kind.request), quantity(kind.most, kind.limit)
		result.Requests[kind.name] = least
		if most.IsZero() {
			continue
		}
		if most.Cmp(least) < 0 {
			r.wrong(kind.most, "%s is less than the request of %s", kind.limit, kind.request)
		}
		if result.Limits == nil {
			result.Limits = corev1.ResourceList{}
		}
		result.Limits[kind.name] = most
	}
	return result
}
