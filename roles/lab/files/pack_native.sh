# Run in the image of the real engine with /out mounted: writes the virtual environment, with its Python, as /out/$1 for the path $2. The hosts have
# another Python. What ENV does in the image, its python3 does.
set -eu
archive=/out/$1 path=$2 python=$(readlink -f /opt/vllm/bin/python3)
name=$(basename "$python")
mkdir -p /tmp/venv/bin /tmp/venv/python/bin /tmp/venv/python/lib
cp "$python" /tmp/venv/python/bin/
cp -a "/usr/lib/$name" /tmp/venv/python/lib/
cat > /tmp/venv/pyvenv.cfg <<CFG
home = $path/python/bin
include-system-site-packages = false
CFG
cat > /tmp/venv/bin/python3 <<SH
#!/bin/sh
export GLIBC_TUNABLES=$GLIBC_TUNABLES VLLM_USE_V1=\${VLLM_USE_V1:-$VLLM_USE_V1} VLLM_NO_USAGE_STATS=1
export VLLM_CPU_KVCACHE_SPACE=\${VLLM_CPU_KVCACHE_SPACE:-$VLLM_CPU_KVCACHE_SPACE} OMP_NUM_THREADS=\${OMP_NUM_THREADS:-$OMP_NUM_THREADS}
exec "\$(dirname "\$0")/$name" "\$@"
SH
chmod +x /tmp/venv/bin/python3
ln -s "../python/bin/$name" "/tmp/venv/bin/$name"
tar --create --file="$archive.new" --directory=/opt/vllm ./lib --directory=/tmp/venv ./bin ./python ./pyvenv.cfg
mv "$archive.new" "$archive"
