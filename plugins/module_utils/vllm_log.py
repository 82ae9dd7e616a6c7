# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a vLLM log says: how far a start has come, how large the KV cache became, and why an engine failed.

The words are those of vLLM 0.8.5, 0.19.1 and 0.32.0, torch, NCCL, Docker and systemd. A log may hold several starts, colours, and the prefixes of
worker processes, `docker compose logs` and journalctl. Standard library only: modules and the host's own program use it.

Only errors count. Lines that the engine logs as DEBUG, INFO or WARNING are passed over, and with them the access log and the prompts of requests,
which may contain any words; the few rules that need such a line say so (quiet).
"""

from __future__ import annotations

import re
from collections import namedtuple

PHASES = ("starting", "loading weights", "profiling", "kv cache", "capturing graphs", "serving")
LOADING = PHASES[:2]
BEFORE_SERVING = PHASES[:5]

# How much of a line is told.
MOST_CHARACTERS = 400

# A reason why an engine fails. symptom: the line to look for, as a person would; pattern finds it, its groups go into message; phases: when it counts;
# quiet: whether lines of the levels DEBUG, INFO and WARNING count too.
Rule = namedtuple("Rule", "code symptom pattern message remedy phases quiet")


def _rule(code, symptom, pattern, message, remedy, phases=PHASES, quiet=False):
    return Rule(code, symptom, re.compile(pattern), message, remedy, phases, quiet)


_OOM = r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|Cuda failure (?:2 )?'out of memory'"
_OOM_NUMBERS = (
    r"Tried to allocate (?P<wanted>[\d.]+ [KMG]iB)\. GPU (?P<card>\d+) has a total capaci?ty of (?P<total>[\d.]+ [KMG]iB) of which "
    r"(?P<free>[\d.]+ (?:[KMG]iB|bytes)) is free"
)
_OOM_MESSAGE = "card {card} of the engine ran out of memory {when}: {wanted} were wanted, {free} of {total} were free"
_WEIGHTS_REMEDY = (
    "The weights do not fit: use more cards (gpus and options.tensor_parallel_size), a checkpoint with fewer bits, or options.cpu_offload_gb. "
    "swap_space holds no weights."
)
_PROFILING_REMEDY = (
    "Lower options.max_num_batched_tokens, max_num_seqs or max_model_len: the profiling run takes as much as the largest batch. swap_space does not help."
)
_GRAPHS_REMEDY = "Lower options.gpu_memory_utilization or max_num_seqs, or set options.enforce_eager: CUDA graphs come on top of the budget."
_NCCL_REMEDY = (
    "Set options.disable_custom_all_reduce, and NCCL_DEBUG: INFO in env to see the reason; NCCL_P2P_DISABLE: '1' in env avoids faulty peer-to-peer transfers."
)
_HANG_REMEDY = (
    "Set options.disable_custom_all_reduce, which vLLM does by itself on more than two cards without NVLink; then NCCL_P2P_DISABLE: '1' in env, and "
    "gpu_tuning_disable_acs where cards are behind a PCIe switch."
)
_SERVING_REMEDY = (
    "Lower options.gpu_memory_utilization, max_num_batched_tokens or max_num_seqs: what the budget leaves free was too little for a batch. "
    "swap_space does not help."
)


def _out_of_memory(when, phases, remedy):
    return (
        _rule("out_of_memory", f"CUDA out of memory ({when})", rf"(?:{_OOM}).*{_OOM_NUMBERS}", _OOM_MESSAGE.replace("{when}", when), remedy, phases),
        _rule("out_of_memory", f"CUDA out of memory ({when})", _OOM, f"a card ran out of memory {when}", remedy, phases),
    )


# The most specific first: what a person should read first when a log has several of them.
RULES = (
    _rule(
        "worker_lost",
        "ray_cluster: the worker … was lost",
        r"ray_cluster: the worker (?P<who>.+?) was lost: (?P<why>.+?)\. The engine cannot",
        "the worker {who} was lost: {why}",
        "Look at journalctl -u ray-worker on that host, and at its power and network. All members start again as one, once it is back.",
    ),
    _rule(
        "worker_missing",
        "ray_cluster: not started, for … did not join",
        r"ray_cluster: not started, for (?P<who>.+?) did not join",
        "the cluster is not complete: {who} did not join",
        "Look at journalctl -u ray-worker on that host, and whether it reaches the head on their network. The head tries again by itself.",
    ),
    _rule(
        "bad_argument",
        "Too large swap space.",
        r"Too large swap space\. (?P<swap>[\d.]+ GiB) out of the (?P<total>[\d.]+ GiB)",
        "swap space of {swap} is wanted out of {total} of host memory",
        "Lower options.swap_space: it is counted in GiB for each card.",
        BEFORE_SERVING,
    ),
    _rule(
        "bad_argument",
        "Total number of attention heads (…) must be divisible by tensor parallel size (…)",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<ranks>\d+)\)",
        "{heads} attention heads cannot be divided among {ranks} cards",
        "Choose gpus and options.tensor_parallel_size so that the heads can be divided; playbooks/plan.yml shows what fits.",
        BEFORE_SERVING,
    ),
    _rule(
        "bad_argument",
        "The input size is not aligned with the quantized weight shape",
        r"size is not aligned with the quantized weight shape",
        "the quantised weights cannot be divided among so many cards",
        "Lower options.tensor_parallel_size; options.pipeline_parallel_size uses further cards.",
        BEFORE_SERVING,
    ),
    _rule(
        "bad_argument",
        "VLLM_USE_V1=1 is not supported with Compute Capability < 8.0",
        r"VLLM_USE_V1=1 is not supported with (?P<feature>[^.]+)",
        "VLLM_USE_V1=1 is set, and this engine's V1 core does not support {feature}",
        "Remove VLLM_USE_V1 from the instance's env.",
        BEFORE_SERVING,
    ),
    _rule(
        "bad_argument",
        "User-specified max_model_len (…) is greater than the derived max_model_len",
        r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len \((?P<most>[^)]*)\)",
        "max_model_len {wanted} is longer than the model's own context ({most})",
        "Lower options.max_model_len, or set options.rope_scaling as the model's card describes.",
        BEFORE_SERVING,
    ),
    _rule(
        "bad_argument",
        "max_num_batched_tokens (…) is smaller than max_model_len (…)",
        r"max_num_batched_tokens \((?P<batch>\d+)\) is smaller than max_model_len \((?P<length>\d+)\)",
        "max_num_batched_tokens {batch} is smaller than max_model_len {length}",
        "Raise options.max_num_batched_tokens to max_model_len, or set options.enable_chunked_prefill.",
        BEFORE_SERVING,
    ),
    _rule(
        "bad_argument",
        "api_server.py: error: unrecognized arguments: …",
        r"(?:^|\s)(?:\S+\.py|vllm(?: serve)?): error: (?P<what>.+)",
        "the engine refuses its command line: {what}",
        "Correct the instance's options; playbooks/plan.yml checks them against the engine's version without touching the host.",
        BEFORE_SERVING,
    ),
    _rule(
        "bad_argument",
        "KeyError: 'invalid tool call parser: …'",
        r"KeyError: .(?P<what>invalid (?:tool call|reasoning) parser: [^ ]+)",
        "{what} is not known to this version",
        "Correct options.tool_call_parser or options.reasoning_parser, or choose another engine_version.",
        BEFORE_SERVING,
    ),
    _rule(
        "port_taken",
        "[Errno 98] Address already in use; port is already allocated",
        r"(?i)(?:address \('[^']*', (?P<a>\d+)|bind for \S*:(?P<b>\d+) failed|listen tcp\S* \S*:(?P<c>\d+): bind|bind host port \S*:(?P<d>\d+)\S*)"
        r".*(?:address already in use|port is already allocated)",
        "port {a}{b}{c}{d} is taken by another program",
        "Give the instance another port, or stop what has it: `ss --listening --tcp --processes` names it.",
    ),
    _rule(
        "port_taken",
        "[Errno 98] Address already in use; port is already allocated",
        r"(?i)address already in use|\[Errno 98\]|port is already allocated|EADDRINUSE",
        "the port is taken by another program",
        "Give the instance another port, or stop what has it: `ss --listening --tcp --processes` names it.",
    ),
    _rule(
        "nccl_error",
        "No space left on device (a segment in /dev/shm)",
        r"(?i)(?:/dev/shm|shared memory).*no space left on device|no space left on device.*/dev/shm",
        "the ranks' shared memory (/dev/shm) is full",
        "Remove what killed engines left in the host's /dev/shm; an engine with a /dev/shm of its own needs a larger one.",
    ),
    _rule(
        "no_disk",
        "No space left on device",
        r"(?i)no space left on device|\[Errno 28\]|disk quota exceeded",
        "a disk is full",
        "Free room below model_weights_root and Docker's data root (docker_engine_data_root); `docker image prune` removes images that nothing uses.",
    ),
    _rule(
        "missing_checkpoint",
        "SafetensorError: Error while deserializing header",
        r"SafetensorError: (?P<what>.*)",
        "a weight file is broken or incomplete: {what}",
        "Remove the file below model_weights_root and run site.yml again: it fetches what is missing.",
        BEFORE_SERVING,
    ),
    _rule(
        "missing_checkpoint",
        "Following weights were not initialized from checkpoint",
        r"Following weights were not initialized from checkpoint: (?P<what>.{0,80})",
        "the checkpoint lacks tensors: {what}",
        "Run site.yml again, which completes the checkpoint; if it is complete, engine_version does not know this model.",
        BEFORE_SERVING,
    ),
    _rule(
        "missing_checkpoint",
        "Cannot find any model weights with …; Invalid repository ID or local directory",
        r"Cannot find any model weights with .(?P<a>[^`']+)|Invalid repository ID or local directory specified: '(?P<b>[^']*)'"
        r"|(?P<c>\S+) is not a local folder and is not a valid model identifier|(?P<d>\S+) does not appear to have a file named"
        r"|Repo id must [^:]*: '(?P<e>[^']*)'|No such file or directory: '(?P<f>[^']*(?:\.safetensors|\.bin|\.gguf|\.json|config|model)[^']*)'",
        "no complete checkpoint at {a}{b}{c}{d}{e}{f}",
        "Run site.yml again: it fetches what is missing below model_weights_root. Check the instance's model and revision.",
        BEFORE_SERVING,
    ),
    _rule(
        "missing_checkpoint",
        "Could not detect config format; LocalEntryNotFoundError",
        r"Could not detect config format|LocalEntryNotFoundError|OfflineModeIsEnabled|outgoing traffic has been disabled|GatedRepoError",
        "no complete checkpoint where the engine looks for it",
        "Run site.yml again: it fetches what is missing below model_weights_root. Check the instance's model and revision.",
        BEFORE_SERVING,
    ),
    _rule(
        "driver_mismatch",
        "Driver/library version mismatch",
        r"(?i)driver/library version mismatch|unsupported display driver / cuda driver combination",
        "the loaded NVIDIA module is of another version than its libraries",
        "The driver's packages were replaced under the running module: run playbooks/host.yml with nvidia_driver_reboot, or reboot.",
    ),
    _rule(
        "driver_too_old",
        "The NVIDIA driver on your system is too old (found version …)",
        r"driver on your system is too old \(found version (?P<found>\d+)\)",
        "the NVIDIA driver is too old for this engine (it offers CUDA {found})",
        "Choose an older engine_version (0.19.1 is the last for CUDA 12, driver 570), or a newer nvidia_driver_version.",
        BEFORE_SERVING,
    ),
    _rule(
        "driver_too_old",
        "forward compatibility was attempted on non supported HW; unsatisfied condition: cuda>=…",
        r"forward compatibility was attempted on non supported HW|unsatisfied condition: cuda|driver version is insufficient for CUDA runtime"
        r"|PTX was compiled with an unsupported toolchain|cudaErrorUnsupportedPtxVersion",
        "the NVIDIA driver is too old for this engine",
        "Choose an older engine_version (0.19.1 is the last for CUDA 12, driver 570), or a newer nvidia_driver_version.",
    ),
    _rule(
        "no_kernel_image",
        "no kernel image is available for execution on the device",
        r"(?i)no kernel image is available",
        "the engine's image has no code for this card",
        "Choose an engine_version whose image is built for compute capability 7.5 (vllm_images), or rebuild the extension for it.",
    ),
    _rule(
        "bfloat16",
        "Bfloat16 is only supported on GPUs with compute capability of at least 8.0",
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. Your (?P<card>.+?) GPU",
        "{card} cannot compute in bfloat16, which the checkpoint asks for",
        "Set options.dtype to half.",
        BEFORE_SERVING,
    ),
    _rule(
        "bfloat16",
        "torch.bfloat16 is not supported for quantization method awq",
        r"torch\.bfloat16 is not supported for quantization method (?P<method>[\w-]+)",
        "the quantisation {method} does not compute in bfloat16",
        "Set options.dtype to half.",
        BEFORE_SERVING,
    ),
    _rule(
        "bfloat16",
        "The model type … does not support float16",
        r"The model type (?P<model>\S+) does not support float16",
        "{model} needs bfloat16 or float32, and cards before compute capability 8.0 have no bfloat16",
        "Set options.dtype to float32 if twice the memory is there, or choose another model.",
        BEFORE_SERVING,
    ),
    _rule(
        "wrong_quantization",
        "Quantization method specified in the model config (…) does not match",
        r"specified in the model config \((?P<model>[^)]*)\) does not match the quantization method specified in the `quantization` argument "
        r"\((?P<asked>[^)]*)\)",
        "the checkpoint is quantised with {model}, and options.quantization says {asked}",
        "Remove options.quantization: the engine reads the checkpoint's own method.",
        BEFORE_SERVING,
    ),
    _rule(
        "wrong_quantization",
        "KeyError: 'model.layers.0.….qweight'",
        r"KeyError: ['\"](?P<tensor>(?:[\w.]+\.)?(?:layers|blocks|h)\.\d+\.[\w.]+)['\"]",
        "the checkpoint has a tensor for which the engine made no place: {tensor}",
        "options.quantization and the checkpoint do not agree: set it to what quantization_config in the model's config.json says, and remove it where there "
        "is none. Quantising the model again does not help.",
        BEFORE_SERVING,
    ),
    _rule(
        "wrong_quantization",
        "The quantization method … is not supported for the current GPU. Minimum capability: 80",
        r"is not supported for [\s\"',]*the current GPU\. Min(?:imum)? capability: (?P<least>\d+)\.[\s\"',)]*Current capability: (?P<card>\d+)",
        "the quantisation needs compute capability {least}, the card has {card}",
        "Use a plain AWQ or GPTQ checkpoint, with options.quantization awq or gptq; engine_version 0.19.1 runs Marlin from 7.5 on.",
        BEFORE_SERVING,
    ),
    _rule(
        "wrong_quantization",
        "Cannot find the config file for awq",
        r"Cannot find the config file for (?P<method>\w+)",
        "options.quantization says {method}, and the checkpoint is not quantised so",
        "Remove options.quantization, or choose a checkpoint that is quantised.",
        BEFORE_SERVING,
    ),
    _rule(
        "too_few_cards",
        "please set tensor_parallel_size (…) to less than max local gpu count (…)",
        r"tensor_parallel_size \((?P<wanted>\d+)\) to less than max local gpu count \((?P<there>\d+)\)",
        "{wanted} cards are wanted, and the engine sees {there}",
        "Lower options.tensor_parallel_size or name more gpus; if a card is missing, playbooks/diagnose.yml shows which.",
        BEFORE_SERVING,
    ),
    _rule(
        "too_few_cards",
        "World size (…) is larger than the number of available GPUs (…) in this node",
        r"[Ww]orld.size \((?P<wanted>\d+)\) is (?:less than than max local gpu count|larger than the number of available GPUs) \((?P<there>\d+)\)",
        "{wanted} cards are wanted, and the engine sees {there}",
        "Lower options.tensor_parallel_size or name more gpus; if a card is missing, playbooks/diagnose.yml shows which.",
        BEFORE_SERVING,
    ),
    _rule(
        "too_few_cards",
        "could not select device driver; unresolvable CDI devices",
        r"could not select device driver|unresolvable CDI devices|nvidia-container-cli: device error",
        "Docker cannot give the container its cards",
        "Run playbooks/host.yml: it installs the container toolkit and writes the cards' CDI specification.",
    ),
    _rule(
        "too_few_cards",
        "No CUDA GPUs are available; Failed to infer device type; invalid device ordinal",
        r"No CUDA GPUs are available|no CUDA-capable device is detected|Failed to infer device type|invalid device ordinal|is out of bounds for"
        r"|Failed to initialize NVML|Unable to determine the device handle|GPU is lost",
        "the engine does not see the cards that it is to use",
        "Run playbooks/diagnose.yml: it compares the cards with the driver's. After `systemctl daemon-reload` or a driver update, restart the instance.",
    ),
    _rule(
        "triton_kernel",
        "Unsupported conversion from f16 to f16; PassManager::run failed",
        r"Unsupported conversion from f16 to f16|Unsupported rounding mode for conversion|mma -> mma layout conversion|PassManager::run failed",
        "Triton cannot compile a kernel for this card",
        "Use engine_version 0.8.5 or 0.19.1, or set options.enable_prefix_caching and enable_chunked_prefill to false.",
    ),
    _rule(
        "triton_kernel",
        "OutOfResources: out of resource: shared memory, Required: …, Hardware limit: 65536",
        r"out of resource: shared memory, Required: (?P<wanted>\d+), Hardware limit: (?P<limit>\d+)",
        "a Triton kernel wants {wanted} bytes of shared memory, the card has {limit}",
        "The model's head size is too large for this kernel: set options.enable_prefix_caching and enable_chunked_prefill to false, or use another model.",
    ),
    _rule(
        "attention_backend",
        "FlashAttention only supports Ampere GPUs or newer",
        r"FlashAttention only supports Ampere GPUs or newer",
        "the attention backend does not run on this card",
        "Remove VLLM_ATTENTION_BACKEND from the instance's env; from engine_version 0.19.1 on set options.attention_backend to TRITON_ATTN.",
    ),
    _rule(
        "card_in_use",
        "Free memory on device (…) on startup is less than desired GPU memory utilization",
        r"Free memory on device \S* ?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired GPU memory utilization \((?P<share>[\d.]+),",
        "only {free} of {total} GiB are free on a card, and gpu_memory_utilization {share} wants more",
        "Stop what holds the card's memory (`nvidia-smi` names it), or lower options.gpu_memory_utilization.",
        BEFORE_SERVING,
    ),
    _rule(
        "card_in_use",
        "Error in memory profiling; device(s) is/are busy or unavailable",
        r"Error in memory profiling|CUDA-capable device\(s\) is/are busy or unavailable",
        "another process uses the card",
        "Stop what holds the card (`nvidia-smi` names it): two engines that start on one card at once misjudge its memory.",
        BEFORE_SERVING,
    ),
    _rule(
        "kv_cache_too_small",
        "The model's max seq len (…) is larger than the maximum number of tokens that can be stored in KV cache (…)",
        r"max seq len \((?P<wanted>\d+)\) is larger than the maximum number of tokens that can be stored in KV cache \((?P<room>\d+)\)",
        "one sequence of max_model_len {wanted} does not fit into the KV cache of {room} tokens",
        "Set options.max_model_len to {room} or less, or raise options.gpu_memory_utilization.",
        BEFORE_SERVING,
    ),
    _rule(
        "kv_cache_too_small",
        "To serve at least one request with the model's max seq len (…), … GiB KV cache is needed",
        r"max seq len \((?P<wanted>\d+)\), \(?(?P<needed>[\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory "
        r"\((?P<room>[\d.]+) GiB\)"
        r"(?:.*estimated maximum model length is (?P<fits>\d+))?",
        "one sequence of max_model_len {wanted} needs {needed} GiB of KV cache, and there are {room} GiB",
        "Lower options.max_model_len (to {fits}), or raise options.gpu_memory_utilization.",
        BEFORE_SERVING,
    ),
    _rule(
        "no_kv_blocks",
        "No available memory for the cache blocks",
        r"No available memory for the cache blocks",
        "weights and activation leave no memory for the KV cache",
        "Raise options.gpu_memory_utilization, lower options.max_num_batched_tokens or max_num_seqs, or use more cards.",
        BEFORE_SERVING,
    ),
    _rule(
        "out_of_memory",
        "CUDA out of memory occurred when warming up sampler with … dummy requests",
        r"CUDA out of memory occurred when warming up (?P<what>sampler|pooler) with (?P<requests>\d+) dummy requests",
        "a card ran out of memory when the {what} was tried with {requests} requests",
        "Lower options.max_num_seqs or gpu_memory_utilization.",
    ),
    *_out_of_memory("while the weights were loaded", LOADING, _WEIGHTS_REMEDY),
    *_out_of_memory("while its memory was profiled", ("profiling",), _PROFILING_REMEDY),
    *_out_of_memory("after the KV cache was made", ("kv cache", "capturing graphs"), _GRAPHS_REMEDY),
    *_out_of_memory("while it served", ("serving",), _SERVING_REMEDY),
    _rule(
        "host_memory",
        "has been killed by the OOM killer; Out of memory: Killed process",
        r"killed by the OOM killer|Failed with result 'oom-kill'|[Oo]ut of memory: Killed process|oom-kill:",
        "the kernel killed the engine because the host's memory was full",
        "Lower options.swap_space or cpu_offload_gb, which take host memory (swap_space for each card), or stop what else fills it.",
    ),
    _rule(
        "host_memory",
        "died, exit code: -9; status=137; status=9/KILL",
        r"died(?: unexpectedly)?,? \(?exit code: -9\b|code=exited, status=137|code=killed, status=9/KILL",
        "the engine was killed (SIGKILL): by the kernel where the host's memory was full, otherwise by hand",
        "Look for `Out of memory: Killed process` in `journalctl --dmesg`; if it is there, lower options.swap_space or cpu_offload_gb.",
    ),
    _rule(
        "cuda_error",
        "CUDA error: an illegal memory access was encountered",
        r"CUDA error: (?P<what>(?!out of memory|no kernel image|invalid device ordinal|the provided PTX|CUDA-capable)[^.]*\w)",
        "a card reported an error: {what}",
        "Look at the card with playbooks/diagnose.yml (Xid lines, lost cards). Where it comes back with the same requests, choose another engine_version.",
    ),
    _rule(
        "nccl_error",
        "NCCL error: unhandled system error",
        r"NCCL error(?: in [^:]*)?: (?P<what>[^(,]*\w)",
        "the cards' communication failed: {what}",
        _NCCL_REMEDY,
    ),
    _rule(
        "nccl_error",
        "ncclSystemError; ncclInternalError; DistBackendError",
        r"ncclSystemError|ncclInternalError|ncclUnhandledCudaError|ncclRemoteError|DistBackendError",
        "the cards' communication failed",
        _NCCL_REMEDY,
    ),
    _rule(
        "nccl_hang",
        "Watchdog caught collective operation timeout; No available shared memory broadcast block found in 60 seconds",
        r"Watchdog caught collective operation timeout|RPC call to \w+ timed out",
        "a rank of the engine no longer answers the others",
        _HANG_REMEDY,
    ),
    _rule(
        "nccl_hang",
        "Watchdog caught collective operation timeout; No available shared memory broadcast block found in 60 seconds",
        r"^No available shared memory broadcast block found",
        "a rank of the engine no longer answers the others",
        _HANG_REMEDY,
        PHASES,
        True,
    ),
)

# A log that ends with one of these lines ends where the ranks connect.
HANG = _rule(
    "nccl_hang",
    "the log ends at `vLLM is using nccl==…` or soon after",
    r"Found nccl from library|vLLM is using nccl==|Custom allreduce is disabled|GPU P2P access cache|message queue communication handle|rank \d+ in world size",
    "the start stopped where the cards connect to each other (NCCL)",
    _HANG_REMEDY,
)
UNKNOWN = _rule(
    "unknown",
    "any other exception",
    r"^(?:[\w.]+: )?(?P<what>(?:\w+\.)*\w*(?:Error|Exception)\b.*)",
    "the engine failed: {what}",
    "Read the log above that line; the engine's version and options are in the instance's definition.",
)
KILLED = "the engine was killed (exit status 137): by the kernel where the host's memory was full, otherwise by hand"

OOM_CODES = ("out_of_memory", "no_kv_blocks", "kv_cache_too_small")

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
# What others put before the engine's own line: compose, journalctl in its short form, docker's timestamps, worker processes, ranks.
_PREFIX = re.compile(
    r"(?:[A-Z][a-z]{2} +\d+ [\d:.]{8,} (?:\| |\S+ [^\s:]+: )|[\w.-]+ +\| |\[[\w-]+\]: |\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-][\d:]+) "
    r"|\((?:\w*Worker\w*|EngineCore\w*|APIServer\w*|RayWorkerWrapper)[^)]*\) |\[rank\d+\]:? ?)"
)
_BODY = re.compile(r"(?:DEBUG|INFO|WARNING|ERROR|CRITICAL):? +(?:\d\d-\d\d [\d:]{8} )?(?:\[[^\]]*\] |\S+\.py:\d+\] )?")

_UNIT_STARTS = re.compile(r"(?:Starting|Started) (?:vllm-\S+\.service|vLLM )")
_ENGINE_STARTS = re.compile(r"vLLM API server version|vLLM server version|█.* version +\d")
_SERVES = re.compile(r'Application startup complete|Uvicorn running on|HTTP/1\.[01]" \d{3}|Avg prompt throughput')
_ENDS = re.compile(
    r"Main process exited|Failed with result|Deactivated successfully|^Stopped |Engine process failed to start|initialization failed"
    r"|died\b|EngineCore encountered a fatal error|Engine loop is not running|Engine loop is dead|: error: "
)
# Exceptions that only say that another process failed.
_SECOND_HAND = re.compile(
    r"Engine process failed to start|Engine core initialization failed|EngineDeadError|ChildProcessError|worker died|WorkerProc initialization failed"
)

_MARKS = (
    ("loading weights", re.compile(r"Starting to load model|Loading \w+ checkpoint shards|Loading weights with|Loading safetensors using")),
    (
        "profiling",
        re.compile(r"[Mm]odel loading took|Loading model weights took|Dynamo bytecode transform|Compiling a graph|torch\.compile takes|Encoder cache will be"),
    ),
    ("kv cache", re.compile(r"Memory profiling (?:takes|results)|# (?:GPU|CUDA|cuda|cpu|CPU) blocks|KV cache size: |Available KV cache memory")),
    ("capturing graphs", re.compile(r"Capturing cudagraphs|Capturing CUDA graph|Graph capturing finished")),
    ("serving", _SERVES),
)
_SHARDS = re.compile(r"Loading \w+ checkpoint shards: +\d+% Completed \| (\d+)/(\d+)")
_GRAPHS = re.compile(r"Capturing CUDA graph.*?: +\d+%\|[^|]*\| (\d+)/(\d+)")
_FILES = re.compile(r"(?:Fetching|Loading) \d+ files|Loading safetensors using[^:]*: +\d+% Completed \| (\d+)/(\d+)")

_COMPILES = re.compile(r"Dynamo bytecode transform|Compiling a graph|torch\.compile takes")
_ANSWERED = re.compile(r'"POST \S+ HTTP/1\.[01]" 200')

_MEMORY = re.compile(
    r"total_gpu_memory|gpu_memory_utilization \(|model weights take|non_torch_memory|peak activation|Loading model weights took|[Mm]odel loading took \d"
    r"|Available KV cache memory|Free memory on device \(|Graph capturing finished in|# (?:GPU|CUDA|cuda) blocks: |KV cache size: [\d,]+ tokens"
    r"|LLM engine \(?v?\d|vLLM API server version"
)
_V1_TOKENS = re.compile(r"(?:GPU|CPU) KV cache size: ([\d,]+) tokens")
_V0_BLOCKS = re.compile(r"# (?:GPU|CUDA|cuda|CPU|cpu) blocks: ([\d,]+)(?:, # CPU blocks|$)")
_BLOCK_SIZE = re.compile(r"\bblock_size(?:=|': ?)(\d+)")
DEFAULT_BLOCK_SIZE = 16

# Names of variables whose values are told nobody.
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SECRETS = (
    re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic)?\s*)[^\s'\",]+"),
    re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{6,}"),
    re.compile(
        r"(?i)((?:api[-_]?key|[\w-]*token|password|secret)['\"]?\s*[:=]\s*(?:\[\s*)?)(?!None\b|null\b|\d+\b|True\b|False\b)"
        r"(?:'[^']*'|\"[^\"]*\"|[^\s,)\]}'\"]+)"
    ),
    re.compile(r"(--(?:api-key|hf-token)[ =])\S+"),
    re.compile(r"()\bhf_[A-Za-z0-9]{16,}"),
)


def causes(text, exit_status=None):
    """Why the last start in the log failed, or the engine died: dicts with code, message, remedy and line, the most specific first.

    message is a clause without a full stop ("a disk is full"), remedy one or more sentences, line the log's own, shortened and without secrets.
    Empty when the log shows no failure: a start under way, or one that serves, whatever went wrong before it did. A start that has not got anywhere yet
    is explained by the one before it. exit_status: the process's, where it is known; 137 is a kill.
    """
    found, ended = [], False
    for start in reversed(_starts(_lines(text))):
        found, ended = _judge(start)
        if found or ended:
            break
    if exit_status in (137, -9) and (not found or found[0]["code"] == "unknown"):
        remedy = next(rule.remedy for rule in reversed(RULES) if rule.code == "host_memory")
        return [{"code": "host_memory", "message": KILLED, "remedy": remedy, "line": ""}]
    return found


def is_oom(text, exit_status=None):
    """Whether the last start in the log ended because the cards' memory was too small: a smaller configuration may succeed.

    Not when the host's own memory was too small. An engine that dies while it serves ends with status 0, so that the status says nothing here
    but for a kill.
    """
    starts = _starts(_lines(text))
    if not starts:
        return False
    codes = [cause["code"] for cause in _judge(starts[-1])[0]]
    if exit_status in (137, -9) and "host_memory" in codes:
        return False
    return bool(codes) and codes[0] in OOM_CODES


def progress(text):
    """How far the last start in the log is: phase (of PHASES), detail (text, may be empty) and share of the phase that is done, or None."""
    phase, detail, share = PHASES[0], "", None
    starts = _starts(_lines(text))
    for line in starts[-1] if starts else ():
        later = _phase(line, phase)
        if later != phase:
            phase, detail, share = later, "", None
        for wanted, pattern, unit in (("loading weights", _SHARDS, "shards"), ("loading weights", _FILES, "files"), ("capturing graphs", _GRAPHS, "graphs")):
            match = pattern.search(line) if phase == wanted else None
            if match and match.group(2) and int(match.group(2)):
                done, total = int(match.group(1)), int(match.group(2))
                detail, share = f"{unit} {done}/{total}", round(min(done / total, 1.0), 3)
        if phase == "profiling" and _COMPILES.search(line):
            detail = "compiling"
    return {"phase": phase, "detail": detail, "share": share}


def told(progress):
    """What progress() returned, for a person: C(loading weights, 3 of 8 shards)."""
    detail = re.sub(r"^(\w+) (\d+)/(\d+)$", r"\2 of \3 \1", progress["detail"])
    return ", ".join(filter(None, (progress["phase"], detail)))


def memory_lines(text):
    """The lines of the last start from which its memory can be read: what the planner's calibration.parse needs, without colours."""
    starts = _starts(_lines(text))
    return [line for line in (starts[-1] if starts else ()) if _MEMORY.search(line)]


def kv_tokens(text, block_size=None):
    """Tokens that the KV cache of the last start holds, None where the log does not say. Of several ranks the smallest counts.

    block_size: tokens in a block, for the V0 engine, which logs blocks; where it is not given, what the log's arguments say, otherwise 16.
    """
    starts = _starts(_lines(text))
    tokens, blocks = [], []
    for line in starts[-1] if starts else ():
        for match in _V1_TOKENS.finditer(line):
            tokens.append(int(match.group(1).replace(",", "")))
        match = _V0_BLOCKS.search(line)
        if match:
            blocks.append(int(match.group(1).replace(",", "")))
        match = _BLOCK_SIZE.search(line)
        if match and block_size is None:
            block_size = int(match.group(1))
    if tokens:
        return min(tokens)
    return min(blocks) * (block_size or DEFAULT_BLOCK_SIZE) if blocks else None


def masked(text):
    """The text without API keys, tokens, passwords and Authorization headers."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\g<1>***", text)
    return text


# -- Parts ---------------------------------------------------------------------------------------------------------------------------------


def _lines(text):
    """Lines without colours; a progress bar's carriage returns separate lines too."""
    text = _COLOUR.sub("", str(text)).replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in text.split("\n") if line.strip()]


def _starts(lines):
    """The lines of each start. systemd says when it starts a unit; without it the engine's first line tells."""
    by_unit = any(_UNIT_STARTS.match(_plain(line)) for line in lines)
    found, starting = [[]], False
    for line in lines:
        word = _plain(line).split(" ", 1)[0] if by_unit and _UNIT_STARTS.match(_plain(line)) else ""
        # "Starting" and "Started" belong to one start, with what ExecStartPre printed between them.
        if (word and not (word == "Started" and starting)) or (not by_unit and _ENGINE_STARTS.search(line)):
            found.append([])
        starting = word == "Starting" or (starting and word != "Started")
        found[-1].append(line)
    return [start for start in found if start]


def _judge(start):
    """(causes of one start, whether the start is over or serves)."""
    phase, seen, ended, last = PHASES[0], {}, False, ""
    exceptions = []
    for line in start:
        later = _phase(line, phase)
        if later == "serving" and phase != "serving":
            # What went wrong before did not keep the engine from serving.
            seen, exceptions, ended, last = {}, [], False, ""
        phase = later
        plain, loud = _told(line)
        if _ANSWERED.search(line):
            seen.pop("nccl_hang", None)
        # The source text in a traceback quotes messages that were not printed.
        if plain.startswith("    "):
            continue
        ended = ended or plain.startswith("Shutting down") or (loud and bool(_ENDS.search(plain)))
        if not _from_systemd(plain):
            last = plain
        for place, rule in enumerate(RULES):
            if (loud or rule.quiet) and phase in rule.phases and (rule.code not in seen or place < seen[rule.code][0]):
                match = rule.pattern.search(plain)
                if match:
                    seen[rule.code] = (place, _cause(rule, match, line))
                    break
        if loud and not _SECOND_HAND.search(plain):
            match = UNKNOWN.pattern.match(plain)
            if match:
                exceptions.append((match, line))
    found = [cause for dummy, cause in sorted(seen.values(), key=lambda item: item[0])]
    if not found and phase == PHASES[0]:
        match = HANG.pattern.search(last)
        if match and not exceptions:
            found = [_cause(HANG, match, last)]
    if not found and exceptions and (phase != "serving" or ended):
        found = [_cause(UNKNOWN, *exceptions[-1])]
    return found, ended or phase == "serving"


def _cause(rule, match, line):
    groups = {name: value or "" for name, value in match.groupdict().items()}
    message = rule.message.format(**groups) if groups else rule.message
    remedy = rule.remedy.format(**groups) if "{" in rule.remedy else rule.remedy
    return {
        "code": rule.code,
        "message": masked(_short(message)),
        "remedy": remedy.replace(" (to )", ""),
        "line": masked(_short(line.strip())),
    }


def _short(text):
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def _plain(line):
    """The line without what other programs put before it."""
    while True:
        match = _PREFIX.match(line)
        if not match or not match.end():
            return line
        line = line[match.end() :]


def _told(line):
    """(the line's own words, whether they are an error or come from elsewhere than the engine's logger)."""
    plain = _plain(line)
    match = _LEVEL.match(plain)
    body = _BODY.match(plain)
    if not match or not body:
        return plain, True
    return _plain(plain[body.end() :]), match.group(1) in ("ERROR", "CRITICAL")


def _from_systemd(plain):
    return bool(re.match(r"(?:Starting|Started|Stopping|Stopped|vllm-\S+\.service: )", plain))


def _phase(line, phase):
    """The phase after the line; a start never goes back, although its ranks log in any order."""
    for later, pattern in _MARKS:
        if PHASES.index(later) > PHASES.index(phase) and pattern.search(line):
            phase = later
    return phase
