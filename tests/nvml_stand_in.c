/* A stand-in for NVIDIA's libnvidia-ml.so.1, for tests: as many cards as a control file says, each call looks there.
 *
 * The file named by JOULEBOX_NVML_CONTROL has lines `KEY VALUE`: `init.rc 9`, `gpus 2`, `energy0 1000`, `energy0.rc 15`.
 * Signatures are those of NVIDIA's public reference (NVML API); return codes too. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long u64;
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2 };
static int users;

static long long told(const char *key, int card, const char *more, long long otherwise) {
    char wanted[80], found[80];
    long long value;
    if (card < 0) snprintf(wanted, sizeof wanted, "%s%s", key, more);
    else snprintf(wanted, sizeof wanted, "%s%d%s", key, card, more);
    FILE *file = fopen(getenv("JOULEBOX_NVML_CONTROL"), "r");
    while (file && fscanf(file, "%79s %lld", found, &value) == 2)
        if (!strcmp(found, wanted)) otherwise = value;
    if (file) fclose(file);
    return otherwise;
}

static int card_of(void *device) { return (int)(size_t)device - 1; }

/* The return code of a call, and the number it gives. */
static int call(const char *key, void *device, u64 *value) {
    if (!users) return UNINITIALIZED;
    *value = (u64)told(key, card_of(device), "", 0);
    return (int)told(key, card_of(device), ".rc", SUCCESS);
}

int standin_users(void) { return users; }

int nvmlInitWithFlags(unsigned flags) {
    int code = (int)told("init", -1, ".rc", SUCCESS);
    if (!code) users++;
    return code;
}

int nvmlShutdown(void) { return users ? (users--, SUCCESS) : UNINITIALIZED; }

const char *nvmlErrorString(int code) { return "told by the stand-in"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!users) return UNINITIALIZED;
    *count = (unsigned)told("gpus", -1, "", 2);
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index >= (unsigned)told("gpus", -1, "", 2)) return INVALID_ARGUMENT;
    *device = (void *)(size_t)(index + 1);
    return (int)told("handle", (int)index, ".rc", SUCCESS);
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-0000-%04d", card_of(device));
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = (int)told("capability", card_of(device), "", 89) / 10;
    *minor = (int)told("capability", card_of(device), "", 89) % 10;
    return SUCCESS;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    u64 mode;
    int code = call("mig", device, &mode);
    *current = *pending = (unsigned)mode;
    return code;
}
#endif

int nvmlDeviceGetTotalEnergyConsumption(void *device, u64 *energy) { return call("energy", device, energy); }

int nvmlDeviceGetPowerUsage(void *device, unsigned *power) {
    u64 value;
    int code = call("power", device, &value);
    *power = (unsigned)value;
    return code;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *temperature) {
    u64 value;
    int code = sensor ? INVALID_ARGUMENT : call("temperature", device, &value);
    *temperature = (unsigned)value;
    return code;
}
