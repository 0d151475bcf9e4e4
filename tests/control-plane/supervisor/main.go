// Command supervisor runs etcd, kube-apiserver and kube-controller-manager on loopback for a test,
// and takes them down again when the test goes away, in whatever way it goes.
//
//	supervisor --dir DIR [--assets DIR] [--remove]
//
// It prints "READY <kubeconfig>" once objects can be created in the namespace "default" and the
// controllers run. It stops when its stdin closes, which the kernel does for a parent that was
// killed, and on SIGTERM, SIGINT and SIGHUP.
//
// Every flag given to a component is an upstream one, so that --assets may name a folder with the
// binaries of a Kubernetes release.
package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// startsMax bounds the starts over after another process took our port between choosing and
	// binding it. Twice in a row is already unlikely.
	startsMax = 3
	// readyWithin is thirty times what a start takes on two idle cores.
	readyWithin = 100 * time.Second
	// pollEvery is short against a start of three seconds.
	pollEvery = 50 * time.Millisecond
	// socketPathBytesMax is what the kernels take for a socket's path, less the closing zero: 104 bytes
	// on macOS, 108 on Linux.
	socketPathBytesMax = 103
	// logTailBytes is what an error shows of the log of a component that died.
	logTailBytes = 2000
	// socketName is etcd's, in the state folder.
	socketName = "etcd.sock"
)

// errPortTaken says that a component found its port in use: worth another start.
var errPortTaken = errors.New("its port was taken by another process")

// The kernel sends a component its death signal when the thread that started it ends, so the
// main goroutine, which starts all of them, stays on the main thread.
func init() { runtime.LockOSThread() }

func main() {
	dir := flag.String("dir", "", "folder for state, certificates, logs and the kubeconfig (required)")
	assets := flag.String("assets", "", "folder with etcd, kube-apiserver and kube-controller-manager (default: the folder of this program)")
	remove := flag.Bool("remove", false, "remove --dir on the way out")
	flag.Parse()
	if err := run(*dir, *assets, *remove); err != nil {
		fmt.Fprintln(os.Stderr, "test control plane:", err)
		os.Exit(1)
	}
}

func run(dir, assets string, remove bool) error {
	if dir == "" {
		return errors.New("--dir is required: name a folder for state and logs")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if assets == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		assets = filepath.Dir(self)
	}
	if socket := filepath.Join(dir, socketName); len(socket) > socketPathBytesMax {
		return fmt.Errorf("%s is too long for a socket's path by %d bytes: choose a shorter --dir (or TMPDIR)", socket, len(socket)-socketPathBytesMax)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if remove {
		defer os.RemoveAll(dir)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()

	plane, err := start(ctx, dir, assets)
	for starts := 1; errors.Is(err, errPortTaken) && starts < startsMax; starts++ {
		plane, err = start(ctx, dir, assets)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		return err
	}
	defer plane.stop()
	fmt.Println("READY", plane.path("kubeconfig"))
	select {
	case <-ctx.Done():
		return nil
	case dead := <-plane.died:
		return dead.failure()
	}
}

// plane is one run of the three components over one state folder.
type plane struct {
	dir, assets string
	address     string
	token       string
	components  []*component
	died        chan *component
}

type component struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // what it ended with; readable once done is closed
}

// start brings a fresh control plane up, or leaves nothing running.
func start(ctx context.Context, dir, assets string) (*plane, error) {
	p := &plane{dir: dir, assets: assets, died: make(chan *component, 3)}
	if err := p.up(ctx); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *plane) up(ctx context.Context) error {
	if err := p.prepare(); err != nil {
		return err
	}
	if err := p.launch("etcd", p.etcdFlags()...); err != nil {
		return err
	}
	if err := p.launch("kube-apiserver", p.apiServerFlags()...); err != nil {
		return err
	}
	if err := p.await(ctx, "/readyz"); err != nil {
		return err
	}
	if err := p.launch("kube-controller-manager", p.controllerManagerFlags()...); err != nil {
		return err
	}
	// The controllers make this account, so it proves that they run and that the namespace is there.
	return p.await(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
}

// auditPolicy has the requests of service accounts written down, those of the controller manager excepted:
// who asked for what, and how that was answered.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  userGroups: ["system:serviceaccounts:kube-system"]
- level: Metadata
  userGroups: ["system:serviceaccounts"]
- level: None
`

// prepare writes what the components read: the key of service account tokens, the administrator's
// token, the audit policy and the kubeconfig. An earlier start's etcd data goes.
func (p *plane) prepare() error {
	if err := os.RemoveAll(p.path("etcd")); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	p.address = net.JoinHostPort("127.0.0.1", port)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	secret := make([]byte, 24)
	if _, err := rand.Read(secret); err != nil {
		return err
	}
	p.token = hex.EncodeToString(secret)
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return errors.Join(
		os.WriteFile(p.path("service-accounts.key"), pem.EncodeToMemory(block), 0o600),
		os.WriteFile(p.path("tokens.csv"), []byte(p.token+`,admin,admin,"system:masters"`+"\n"), 0o600),
		os.WriteFile(p.path("audit-policy.yaml"), []byte(auditPolicy), 0o600),
		os.WriteFile(p.path("kubeconfig"), []byte(p.kubeconfig()), 0o600),
	)
}

func (p *plane) kubeconfig() string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster:
    server: https://%s
    certificate-authority: %q
users:
- name: admin
  user:
    token: %s
contexts:
- name: test
  context:
    cluster: test
    user: admin
`, p.address, p.path("apiserver.crt"), p.token)
}

// etcdFlags let etcd serve on a socket in the state folder: there is no port to lose, and no other
// control plane can write into this one's store.
func (p *plane) etcdFlags() []string {
	return []string{
		"--data-dir=" + p.path("etcd"),
		"--listen-client-urls=" + p.etcdURL(),
		// Required, and to be a host and port; it is for clients that discover members, and ours does not.
		"--advertise-client-urls=http://127.0.0.1:0",
		"--listen-peer-urls=http://127.0.0.1:0",
		"--unsafe-no-fsync=true",
		"--log-level=warn",
	}
}

func (p *plane) apiServerFlags() []string {
	host, port, _ := net.SplitHostPort(p.address)
	return []string{
		"--etcd-servers=" + p.etcdURL(),
		"--bind-address=" + host,
		"--secure-port=" + port,
		// The Service "kubernetes" needs an address that is not loopback, and nobody dials it.
		"--advertise-address=192.0.2.1",
		"--endpoint-reconciler-type=none",
		"--cert-dir=" + p.dir,
		"--token-auth-file=" + p.path("tokens.csv"),
		"--authorization-mode=RBAC",
		// On OpenShift and some other platforms who names an owner must be allowed to hold up its deletion.
		"--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
		"--audit-policy-file=" + p.path("audit-policy.yaml"),
		"--audit-log-path=" + p.path("audit.log"),
		"--allow-privileged=true",
		"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.path("service-accounts.key"),
		"--service-account-signing-key-file=" + p.path("service-accounts.key"),
		// Tests run at once and in bursts: none of them is about being throttled by the API server.
		"--enable-priority-and-fairness=false",
		"--max-requests-inflight=3000",
		"--max-mutating-requests-inflight=1000",
	}
}

func (p *plane) controllerManagerFlags() []string {
	return []string{
		"--kubeconfig=" + p.path("kubeconfig"),
		"--secure-port=0",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + p.path("service-accounts.key"),
		"--root-ca-file=" + p.path("apiserver.crt"),
		// Its default is a folder of the machine, which it creates.
		"--flex-volume-plugin-dir=" + p.path("volume-plugins"),
		// Its default of 20 requests a second makes a test wait for the deletion of its namespace.
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	}
}

func (p *plane) launch(name string, flags ...string) error {
	log, err := os.Create(p.path(name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c := &component{name: name, log: log.Name(), done: make(chan struct{})}
	c.cmd = exec.Command(filepath.Join(p.assets, name), flags...)
	c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = p.dir, log, log
	c.cmd.SysProcAttr = attributes()
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("%s does not start; --assets must name a folder that holds it: %w", name, err)
	}
	p.components = append(p.components, c)
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
		p.died <- c
	}()
	return nil
}

// await polls a path of the API server until it answers 200. The probe does not check the
// certificate, which the API server has yet to write; the token is this start's own, so another
// server on that port answers 401.
func (p *plane) await(ctx context.Context, path string) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: 2 * time.Second, Transport: transport}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.address+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+p.token)
	deadline := time.After(readyWithin)
	for {
		if response, err := client.Do(request); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case dead := <-p.died:
			return dead.failure()
		case <-deadline:
			return fmt.Errorf("%s did not answer 200 within %s; without --remove the logs stay in %s", path, readyWithin, p.dir)
		case <-time.After(pollEvery):
		}
	}
}

// stop kills the components, the last one first, and waits for each: their state is thrown away,
// and nothing may write into the folder while it is removed.
func (p *plane) stop() {
	for i := len(p.components) - 1; i >= 0; i-- {
		_ = p.components[i].cmd.Process.Kill()
		<-p.components[i].done
	}
}

func (p *plane) path(name string) string { return filepath.Join(p.dir, name) }

func (p *plane) etcdURL() string { return "unix://" + p.path(socketName) }

// failure says how the component ended, with the end of its log.
func (c *component) failure() error {
	text, _ := os.ReadFile(c.log)
	tail := strings.TrimSpace(string(text[max(0, len(text)-logTailBytes):]))
	err := fmt.Errorf("%s ended: %v; the end of its log:\n%s", c.name, c.err, tail)
	if strings.Contains(tail, "address already in use") {
		return fmt.Errorf("%w: %w", errPortTaken, err)
	}
	return err
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}
