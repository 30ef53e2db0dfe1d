/** Starts a program in the namespaces of a new node. */
export const UNSHARE = [
  "unshare",
  "--mount",
  "--uts",
  "--ipc",
  "--net",
  "--pid",
  "--fork",
  "--propagation=private"
] as const

/**
 * Process 1 of a node, a POSIX shell script. It runs in new mount, UTS, IPC, PID and network namespaces, builds the
 * file system of the node and stays, to adopt the orphans of its daemons. Nothing of it reaches this machine: every
 * mount is private to the node and ends with it.
 *
 * Arguments: the folder of the node, its name, the folder to put over /usr (or ""), the folder that all nodes share,
 * and the programs to put into /kubernetes.
 */
export const NODE_INIT = `set -eu
folder=$1 name=$2 overlay=$3 shared=$4
shift 4
echo "$name" > /proc/sys/kernel/hostname

mount -t tmpfs -o mode=755,size=64m "$name" "$folder/root"
cd "$folder/root"
mkdir dev etc home kubernetes mnt old opt proc root run sys tmp usr var

# Programs are those of the machine.
if [ -n "$overlay" ]; then mount -t overlay -o "ro,lowerdir=$overlay:/usr" usr usr; else mount --rbind /usr usr; fi
for path in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$path" ]; then cp -P "/$path" "$path"; elif [ -d "/$path" ]; then mkdir "$path"; mount --rbind "/$path" "$path"; fi
done
if [ -d /opt ]; then mount --rbind /opt opt; fi
for program in "$@"; do
  touch "kubernetes/\${program##*/}"
  mount --bind "$program" "kubernetes/\${program##*/}"
done

# The disk of the node outlives a power cycle.
for path in etc tmp var; do mount --bind "$folder/disk/$path" "$path"; done
for path in passwd group nsswitch.conf protocols services ld.so.cache alternatives; do
  if [ -e "/etc/$path" ]; then cp -a "/etc/$path" etc/; fi
done
ln -sf /proc/self/mounts etc/mtab
mkdir -p tmp/hostpath_pv
mount --bind "$shared" tmp/hostpath_pv

mount --rbind /dev dev
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755,size=256m run run
mkdir run/lock run/netns run/sysctl

# kubelet sets these, and they are those of the whole machine: let it write to a copy.
for path in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \\
  kernel/keys/root_maxbytes; do
  copy="run/sysctl/\${path##*/}"
  cat "/proc/sys/$path" > "$copy"
  mount --bind "$copy" "proc/sys/$path"
done

# What is in /var/run ends with the power, as on other machines.
mkdir -p var/cache var/lib var/log var/tmp
ln -sfn /run var/run

mount --make-rprivate .
pivot_root . old
cd /
umount -l /old
rmdir /old
# kubelet needs it for mounts that pods propagate.
mount --make-rshared /

# Packages that are only unpacked lack the choice that installing them makes. The kernel may know one kind alone.
if [ ! -e /usr/sbin/iptables ]; then
  kind=nft
  iptables-nft -t nat -S > /dev/null 2>&1 || kind=legacy
  mkdir -p /etc/alternatives
  for family in iptables ip6tables; do for tool in "" -save -restore; do
    ln -sf "/usr/sbin/$family-$kind$tool" "/etc/alternatives/$family$tool"
  done; done
fi

touch /run/node-ready
exec sh -c 'while :; do sleep 3600 & wait $!; done'
`
