/* What somebody could do who had taken over the daemon: run in its place, under its unit, this tries one
 * thing after the other and prints 'refused NAME' or 'DONE NAME'. What the daemon itself needs is tried
 * first ('allowed NAME', 'DENIED NAME'), so that the rest is not refused for want of everything. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Refused: -1, whatever the reason; which it was is shown. */
static void refused(const char *name, long result)
{
	if (result == -1)
		printf("refused %s: %s\n", name, strerror(errno));
	else
		printf("DONE %s\n", name);
}

static void allowed(const char *name, long result)
{
	if (result == -1)
		printf("DENIED %s: %s\n", name, strerror(errno));
	else
		printf("allowed %s\n", name);
}

static long try_write(const char *path)
{
	return open(path, O_WRONLY | O_CREAT, 0600);
}

/* Whether a program runs: its exit code, or -1 with the errno of execve. */
static long try_exec(const char *path, char *const arguments[])
{
	int channel[2];
	if (pipe2(channel, O_CLOEXEC))
		return -1;
	pid_t child = fork();
	if (child == 0) {
		int null = open("/dev/null", O_WRONLY);
		dup2(null, 1);
		dup2(null, 2);
		execv(path, arguments);
		int error = errno;
		ssize_t ignored = write(channel[1], &error, sizeof(error));
		(void)ignored;
		_exit(127);
	}
	close(channel[1]);
	int error = 0, status = 0;
	ssize_t length = read(channel[0], &error, sizeof(error));
	waitpid(child, &status, 0);
	if (length == sizeof(error)) {
		errno = error;
		return -1;
	}
	/* The loader says so when it may not map the program. */
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
		errno = EACCES;
		return -1;
	}
	return 0;
}

static void files(void)
{
	static const char *const places[] = {
		"/etc/intruder",	    "/usr/bin/intruder",
		"/usr/lib/intruder",	    "/var/lib/intruder",
		"/var/log/intruder",	    "/var/spool/intruder",
		"/run/intruder",	    "/boot/intruder",
		"/root/intruder",	    "/home/intruder",
		"/etc/blkiolatd/intruder",  "/proc/sys/kernel/core_pattern",
		"/sys/kernel/mm/ksm/run",   "/sys/kernel/tracing/events/block/enable",
		"/dev/shm/../mem",	    "/dev/kmsg",
		"/sys/fs/cgroup/cgroup.procs",
	};
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		char name[100];
		snprintf(name, sizeof(name), "write-%s", places[i]);
		refused(name, try_write(places[i]));
	}
	const char *disk = getenv("TEST_DISK");
	char path[100];
	snprintf(path, sizeof(path), "/dev/%s", disk ? disk : "sda");
	refused("open-disk", open(path, O_RDONLY));
	refused("make-disk", mknod("node", S_IFBLK | 0600, 7 << 8));
	refused("read-shadow", open("/etc/shadow", O_RDONLY));
	refused("read-root", open("/root/.profile", O_RDONLY));
	refused("see-other-processes", open("/proc/1/status", O_RDONLY));
	long file = open("owned", O_WRONLY | O_CREAT, 0600);
	refused("set-user-id", file == -1 ? -1 : fchmod((int)file, 04755));
}

static void network(void)
{
	static const struct {
		const char *name;
		int family, type;
	} sockets[] = {
		{ "inet", AF_INET, SOCK_STREAM },   { "inet6", AF_INET6, SOCK_DGRAM },
		{ "packet", AF_PACKET, SOCK_RAW },  { "vsock", AF_VSOCK, SOCK_STREAM },
		{ "alg", AF_ALG, SOCK_SEQPACKET }, { "can", AF_CAN, SOCK_RAW },
		{ "raw", AF_INET, SOCK_RAW },
	};
	for (size_t i = 0; i < sizeof(sockets) / sizeof(*sockets); i++) {
		char name[50];
		snprintf(name, sizeof(name), "socket-%s", sockets[i].name);
		refused(name, socket(sockets[i].family, sockets[i].type, 0));
	}
}

static void kernel(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	struct sched_param realtime = { .sched_priority = 1 };
	char byte;
	struct iovec here = { &byte, 1 }, there = { (void *)0x1000, 1 };

	refused("init-module", syscall(SYS_init_module, "", 0, ""));
	refused("finit-module", syscall(SYS_finit_module, 0, "", 0));
	refused("delete-module", syscall(SYS_delete_module, "loop", 0));
	refused("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
	refused("mount", syscall(SYS_mount, "tmpfs", "/tmp", "tmpfs", 0, NULL));
	refused("unmount", syscall(SYS_umount2, "/tmp", 2 /* MNT_DETACH */));
	refused("pivot-root", syscall(SYS_pivot_root, ".", "."));
	refused("chroot", chroot("."));
	refused("new-user-namespace", unshare(CLONE_NEWUSER));
	refused("new-mount-namespace", unshare(CLONE_NEWNS));
	refused("ptrace", syscall(SYS_ptrace, 16 /* PTRACE_ATTACH */, 1, 0, 0));
	refused("read-memory-of-others", process_vm_readv(1, &here, 1, &there, 1, 0));
	refused("kernel-log", syscall(SYS_syslog, 3, &byte, 1));
	refused("set-clock", clock_settime(CLOCK_REALTIME, &now));
	refused("set-host-name", sethostname("intruder", 8));
	refused("swap", syscall(SYS_swapoff, "/dev/none"));
	refused("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
	refused("real-time", sched_setscheduler(0, SCHED_FIFO, &realtime));
	refused("personality", syscall(SYS_personality, 8 /* PER_LINUX32 */));
	refused("become-root", setuid(0));
	refused("signal-others", kill(1, 0));
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	refused("make-code", mprotect(page, 4096, PROT_READ | PROT_EXEC));
	refused("map-code", (long)mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
				       -1, 0));
}

static long make_map(void)
{
	union bpf_attr map;
	memset(&map, 0, sizeof(map));
	map.map_type = BPF_MAP_TYPE_HASH;
	map.key_size = map.value_size = 8;
	map.max_entries = 1;
	return syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof(map));
}

/* As the daemon does when its programs are attached. */
static void give_up(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2] = { { 0 } };
	allowed("give-up-capabilities", syscall(SYS_capset, &header, none));
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1)
		return 0;
	allowed("write-log", try_write("/var/log/blkiolatd/intruder"));
	allowed("write-state", try_write("intruder"));
	allowed("unix-socket", socket(AF_UNIX, SOCK_DGRAM, 0));
	allowed("netlink-socket", socket(AF_NETLINK, SOCK_RAW, 15 /* NETLINK_KOBJECT_UEVENT */));
	allowed("bpf", make_map());
	allowed("run-itself", try_exec(argv[0], (char *[]){ argv[0], "again", NULL }));
	give_up();
	refused("bpf-without-capabilities", make_map());
	files();
	network();
	kernel();
	refused("run-shell", try_exec("/bin/sh", (char *[]){ "sh", "-c", "exit 0", NULL }));
	refused("run-own-file", symlink("/bin/sh", "shell") ? -1 :
		try_exec("./shell", (char *[]){ "shell", "-c", "exit 0", NULL }));
	puts("end");
	return 0;
}
