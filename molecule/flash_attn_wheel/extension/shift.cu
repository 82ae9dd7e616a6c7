__global__ void shift_kernel(float *values, float offset, int count) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) values[index] += offset;
}

void shift(float *values, float offset, int count) { shift_kernel<<<(count + 255) / 256, 256>>>(values, offset, count); }
