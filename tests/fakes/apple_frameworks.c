/*
 * CoreFoundation and Security in small: the calls that the agent makes, with reference counts that
 * are watched and a keychain of one key. The elliptic curve is the test's, through a callback.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef enum { STRING, NUMBER, DATA, DICTIONARY, ERROR, ACCESS, KEY, PUBLIC_KEY, CONSTANT } Kind;

typedef struct Object {
    Kind kind;
    long count;              /* references; a constant has none to lose */
    long size;               /* bytes, or entries of a dictionary */
    unsigned char bytes[512];
    struct Object *keys[16];
    struct Object *values[16];
    long code;
} Object;

static long live, misuse;
static Object *keychain, *cache_key;
static int refuse_step, refuse_code, may_use_keychain = 1;
static int (*sign_callback)(const unsigned char *, long, unsigned char *);
static unsigned char public_point[65];

static Object *make(Kind kind) {
    Object *made = calloc(1, sizeof(Object));
    made->kind = kind;
    made->count = 1;
    live++;
    return made;
}

#define EXPORT(name) static Object name##_object = {.kind = CONSTANT}; void *name = &name##_object
EXPORT(kCFBooleanTrue);
EXPORT(kCFBooleanFalse);
EXPORT(kSecClass);
EXPORT(kSecClassKey);
EXPORT(kSecAttrKeyType);
EXPORT(kSecAttrKeyTypeECSECPrimeRandom);
EXPORT(kSecAttrKeySizeInBits);
EXPORT(kSecAttrTokenID);
EXPORT(kSecAttrTokenIDSecureEnclave);
EXPORT(kSecAttrLabel);
EXPORT(kSecAttrAccessGroup);
EXPORT(kSecAttrAccessControl);
EXPORT(kSecAttrIsPermanent);
EXPORT(kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly);
EXPORT(kSecPrivateKeyAttrs);
EXPORT(kSecReturnRef);
EXPORT(kSecUseDataProtectionKeychain);
EXPORT(kSecKeyAlgorithmECDSASignatureMessageX962SHA256);
EXPORT(kSecKeyAlgorithmECIESEncryptionCofactorVariableIVX963SHA256AESGCM);
long kCFTypeDictionaryKeyCallBacks[6] = {1}, kCFTypeDictionaryValueCallBacks[5] = {2};

/* What a test sets and reads. */
void fake_reset(void) {
    live = misuse = refuse_step = refuse_code = 0;
    may_use_keychain = 1;
    keychain = cache_key = NULL;
}
void fake_signer(int (*callback)(const unsigned char *, long, unsigned char *)) {
    sign_callback = callback;
}
void fake_point(const unsigned char *point) { memcpy(public_point, point, 65); }
void fake_refuse(int step, int code) { refuse_step = step; refuse_code = code; }
void fake_entitled(int yes) { may_use_keychain = yes; }
long fake_live(void) { return live; }
long fake_misuse(void) { return misuse; }

static int refused(int step, void **error) {
    if (refuse_step != step) return 0;
    if (error) {
        Object *made = make(ERROR);
        made->code = refuse_code;
        *error = made;
    }
    return 1;
}

void CFRelease(void *reference) {
    Object *object = reference;
    if (!object || object->kind == CONSTANT || object->count <= 0) { misuse++; return; }
    if (--object->count > 0) return;
    live--;
    if (object->kind == DICTIONARY)
        for (long i = 0; i < object->size; i++)
            if (object->values[i]->kind != CONSTANT) CFRelease(object->values[i]);
    /* Kept, so that a second release is seen. */
}

void *CFStringCreateWithBytes(void *allocator, const char *bytes, long size, uint32_t encoding,
                              unsigned char external) {
    if (allocator || encoding != 0x08000100 || external || size > 511) { misuse++; return NULL; }
    Object *made = make(STRING);
    made->size = size;
    memcpy(made->bytes, bytes, size);
    return made;
}
void *CFNumberCreate(void *allocator, long type, const int32_t *value) {
    if (allocator || type != 3) { misuse++; return NULL; }
    Object *made = make(NUMBER);
    made->code = *value;
    return made;
}
void *CFDataCreate(void *allocator, const char *bytes, long size) {
    if (allocator) { misuse++; return NULL; }
    Object *made = make(DATA);
    made->size = size > 512 ? 512 : size;
    memcpy(made->bytes, bytes, made->size);
    return made;
}
long CFDataGetLength(Object *data) { return data->kind == DATA ? data->size : -1; }
const unsigned char *CFDataGetBytePtr(Object *data) { return data->bytes; }
long CFErrorGetCode(Object *error) { return error->code; }

void *CFDictionaryCreate(void *allocator, void **keys, void **values, long size, void *key_calls,
                         void *value_calls) {
    if (allocator || size > 16 || key_calls != kCFTypeDictionaryKeyCallBacks ||
        value_calls != kCFTypeDictionaryValueCallBacks) { misuse++; return NULL; }
    Object *made = make(DICTIONARY);
    made->size = size;
    for (long i = 0; i < size; i++) {
        made->keys[i] = keys[i];
        made->values[i] = values[i];
        if (made->values[i]->kind != CONSTANT) made->values[i]->count++;
    }
    return made;
}

static Object *get(Object *dictionary, void *key) {
    for (long i = 0; i < dictionary->size; i++)
        if (dictionary->keys[i] == key) return dictionary->values[i];
    return NULL;
}
static int says(Object *text, const char *expected) {
    return text && text->kind == STRING && (size_t)text->size == strlen(expected) &&
           !memcmp(text->bytes, expected, text->size);
}
static int of_cache(Object *key_attributes) {
    return says(get(key_attributes, kSecAttrLabel), "io.darkbloom.kv.kek.v1");
}
static int well_formed(Object *key_attributes) {
    return (of_cache(key_attributes) ||
            says(get(key_attributes, kSecAttrLabel),
                 "io.darkbloom.provider.attestation-signing.v2")) &&
           says(get(key_attributes, kSecAttrAccessGroup), "TEAM123456.io.darkbloom.provider");
}

int32_t SecItemCopyMatching(Object *query, void **result) {
    if (refuse_step == 1) return refuse_code;
    if (get(query, kSecClass) != kSecClassKey || get(query, kSecReturnRef) != kCFBooleanTrue ||
        get(query, kSecAttrTokenID) != kSecAttrTokenIDSecureEnclave ||
        get(query, kSecUseDataProtectionKeychain) != kCFBooleanTrue || !well_formed(query))
        return -50;
    if (!may_use_keychain) return -34018;
    Object *found = of_cache(query) ? cache_key : keychain;
    if (!found) return -25300;
    found->count++;
    *result = found;
    return 0;
}
void *SecAccessControlCreateWithFlags(void *allocator, void *protection, unsigned long flags,
                                      void **error) {
    if (refused(2, error)) return NULL;
    if (allocator || protection != kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly ||
        flags != (1ul << 30)) { misuse++; return NULL; }
    return make(ACCESS);
}
void *SecKeyCreateRandomKey(Object *attributes, void **error) {
    if (refused(3, error)) return NULL;
    Object *key = get(attributes, kSecPrivateKeyAttrs), *bits = get(attributes, kSecAttrKeySizeInBits);
    Object *access = key ? get(key, kSecAttrAccessControl) : NULL;
    if (!key || !bits || bits->code != 256 || !access || access->kind != ACCESS ||
        get(attributes, kSecAttrTokenID) != kSecAttrTokenIDSecureEnclave ||
        get(key, kSecAttrIsPermanent) != kCFBooleanTrue || !well_formed(key)) {
        misuse++;
        return NULL;
    }
    Object *made = make(KEY);
    made->count++; /* one is the keychain's */
    if (of_cache(key)) cache_key = made; else keychain = made;
    return made;
}
void *SecKeyCopyPublicKey(Object *key) {
    return refuse_step == 4 || key->kind != KEY ? NULL : make(PUBLIC_KEY);
}
void *SecKeyCopyExternalRepresentation(Object *key, void **error) {
    if (refused(5, error)) return NULL;
    if (key->kind != PUBLIC_KEY) { misuse++; return NULL; }
    return CFDataCreate(NULL, (const char *)public_point, 65);
}
void *SecKeyCreateSignature(Object *key, void *algorithm, Object *message, void **error) {
    unsigned char signature[128];
    if (refused(6, error)) return NULL;
    if (key->kind != KEY || message->kind != DATA ||
        algorithm != kSecKeyAlgorithmECDSASignatureMessageX962SHA256) { misuse++; return NULL; }
    int size = sign_callback(message->bytes, message->size, signature);
    return CFDataCreate(NULL, (const char *)signature, size);
}

/* No encryption, but nothing else can open it either: a mark, and every byte turned. */
static void *turned(Object *data, long from, const char *mark) {
    char out[512];
    long head = (long)strlen(mark);
    memcpy(out, mark, head);
    for (long i = from; i < data->size; i++) out[head + i - from] = data->bytes[i] ^ 0x5a;
    return CFDataCreate(NULL, out, head + data->size - from);
}
void *SecKeyCreateEncryptedData(Object *key, void *algorithm, Object *data, void **error) {
    if (refused(7, error)) return NULL;
    if (key->kind != PUBLIC_KEY || data->kind != DATA ||
        algorithm != kSecKeyAlgorithmECIESEncryptionCofactorVariableIVX963SHA256AESGCM) {
        misuse++;
        return NULL;
    }
    return turned(data, 0, "sealed");
}
void *SecKeyCreateDecryptedData(Object *key, void *algorithm, Object *data, void **error) {
    if (refused(8, error)) return NULL;
    if (key->kind != KEY || data->kind != DATA || data->size < 7 ||
        algorithm != kSecKeyAlgorithmECIESEncryptionCofactorVariableIVX963SHA256AESGCM) {
        misuse++;
        return NULL;
    }
    return turned(data, 6, "");
}
