/* The limit: libjpeg-turbo decodes the window of a random-resized crop, shrunk by a power of two as
 * far as it stays at least as large as the output; then the mean of the area under each pixel (of
 * a side that grows: bilinear), and every second image mirrored. Files are in memory, threads share
 * the work, pixels are written to a batch and never looked at.
 *
 *   limit THREADS IMAGES < list of files, an empty line, then a line for each measurement
 *   limit resize HEIGHT WIDTH < pixels > pixels
 */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

enum { SIZE = 224, BATCH = 128, MAX_TAPS = 64 };

typedef struct { unsigned char *bytes; size_t length; } File;
typedef struct { int begin[SIZE], count[SIZE]; float weight[SIZE][MAX_TAPS]; } Filter;
typedef struct { int thread, threads, images; unsigned long long random; } Work;
typedef struct { struct jpeg_error_mgr base; jmp_buf out; } ErrorHandler;

static File *files;
static int num_files;
static unsigned char *batch;

static double uniform(unsigned long long *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (*state >> 11) * (1.0 / 9007199254740992.0);
}

static void make_filter(Filter *filter, int length) {
    double scale = (double)length / SIZE;
    for (int i = 0; i < SIZE; i++) {
        double low = i * scale, high = low + scale, sum = 0;
        if (scale < 1) {
            double centre = (i + 0.5) * scale - 0.5;
            int first = (int)floor(centre);
            float share = (float)(centre - first);
            int a = first < 0 ? 0 : first, b = first + 1 >= length ? length - 1 : first + 1;
            filter->begin[i] = a;
            filter->count[i] = b - a + 1;
            filter->weight[i][0] = b > a ? 1 - share : 1;
            filter->weight[i][1] = share;
            continue;
        }
        int begin = (int)low, end = (int)ceil(high);
        if (end > length) end = length;
        if (end - begin > MAX_TAPS) end = begin + MAX_TAPS;
        filter->begin[i] = begin;
        filter->count[i] = end - begin;
        for (int k = begin; k < end; k++) {
            double overlap = fmin(high, k + 1) - fmax(low, k);
            filter->weight[i][k - begin] = (float)(overlap / scale);
            sum += overlap / scale;
        }
        for (int k = 0; k < end - begin; k++) filter->weight[i][k] /= (float)sum;
    }
}

/* Rows first (vectorised over a whole row), then columns. */
static void resize(const unsigned char *in, int height, int width, int stride, int mirrored,
                   unsigned char *out) {
    static _Thread_local Filter rows, columns;
    static _Thread_local float *sum;
    if (!sum) sum = malloc(sizeof(float) * 3 * 65536);
    make_filter(&rows, height);
    make_filter(&columns, width);
    for (int y = 0; y < SIZE; y++) {
        const unsigned char *row = in + (size_t)rows.begin[y] * stride;
        float first = rows.weight[y][0];
        for (int x = 0; x < 3 * width; x++) sum[x] = first * row[x];
        for (int k = 1; k < rows.count[y]; k++) {
            const unsigned char *next = row + (size_t)k * stride;
            float weight = rows.weight[y][k];
            for (int x = 0; x < 3 * width; x++) sum[x] += weight * next[x];
        }
        for (int x = 0; x < SIZE; x++) {
            const float *from = sum + 3 * columns.begin[x];
            float r = 0.5f, g = 0.5f, b = 0.5f;
            for (int k = 0; k < columns.count[x]; k++) {
                float weight = columns.weight[x][k];
                r += weight * from[3 * k];
                g += weight * from[3 * k + 1];
                b += weight * from[3 * k + 2];
            }
            unsigned char *to = out + 3 * (y * SIZE + (mirrored ? SIZE - 1 - x : x));
            to[0] = (unsigned char)r;
            to[1] = (unsigned char)g;
            to[2] = (unsigned char)b;
        }
    }
}

static void draw_window(int height, int width, unsigned long long *state, int window[4]) {
    for (int attempt = 0; attempt < 10; attempt++) {
        double area = (0.08 + 0.92 * uniform(state)) * height * width;
        double aspect = 0.75 * exp(log(1.3333 / 0.75) * uniform(state));
        int w = (int)lround(sqrt(area * aspect)), h = (int)lround(sqrt(area / aspect));
        if (w <= width && h <= height && w > 0 && h > 0) {
            window[0] = (int)(uniform(state) * (height - h + 1));
            window[1] = (int)(uniform(state) * (width - w + 1));
            window[2] = h;
            window[3] = w;
            return;
        }
    }
    window[0] = window[1] = 0;
    window[2] = height;
    window[3] = width;
}

static void quit(j_common_ptr info) { longjmp(((ErrorHandler *)info->err)->out, 1); }

static void one_image(File file, unsigned long long *state, unsigned char *out) {
    static _Thread_local unsigned char *pixels;
    static _Thread_local size_t capacity;
    struct jpeg_decompress_struct info;
    ErrorHandler errors;
    info.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = quit;
    jpeg_create_decompress(&info);
    if (setjmp(errors.out)) {
        jpeg_destroy_decompress(&info);
        return;
    }
    jpeg_mem_src(&info, file.bytes, file.length);
    jpeg_read_header(&info, TRUE);
    int window[4];
    draw_window((int)info.image_height, (int)info.image_width, state, window);
    int shorter = window[2] < window[3] ? window[2] : window[3], ratio = 1;
    while (ratio < 8 && shorter / (2 * ratio) >= SIZE) ratio *= 2;
    for (int i = 0; i < 4; i++) window[i] /= ratio;
    info.scale_num = 1;
    info.scale_denom = ratio;
    info.out_color_space = JCS_RGB;
    info.dct_method = JDCT_ISLOW;
    jpeg_start_decompress(&info);
    JDIMENSION left = window[1], width = window[3];
    jpeg_crop_scanline(&info, &left, &width);
    size_t stride = (size_t)info.output_width * 3;
    if (stride * window[2] > capacity) pixels = realloc(pixels, capacity = stride * window[2]);
    jpeg_skip_scanlines(&info, window[0]);
    for (int row = 0; row < window[2];) {
        JSAMPROW line = pixels + row * stride;
        row += (int)jpeg_read_scanlines(&info, &line, 1);
    }
    resize(pixels + 3 * (window[1] - left), window[2], window[3], (int)stride,
           uniform(state) < 0.5, out);
    jpeg_abort_decompress(&info);
    jpeg_destroy_decompress(&info);
}

static void *work(void *argument) {
    Work *job = argument;
    for (int i = job->thread; i < job->images; i += job->threads)
        one_image(files[i % num_files], &job->random, batch + (size_t)(i % BATCH) * SIZE * SIZE * 3);
    return NULL;
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "resize")) {
        int height = atoi(argv[2]), width = atoi(argv[3]);
        unsigned char *in = malloc(3 * (size_t)height * width), *out = malloc(3 * SIZE * SIZE);
        if (fread(in, 3, (size_t)height * width, stdin) != (size_t)height * width) return 1;
        resize(in, height, width, 3 * width, 0, out);
        return fwrite(out, 3, SIZE * SIZE, stdout) != SIZE * SIZE;
    }
    int threads = atoi(argv[1]), images = atoi(argv[2]);
    char line[4096];
    while (fgets(line, sizeof line, stdin) && line[0] != '\n') {
        line[strcspn(line, "\n")] = 0;
        FILE *file = fopen(line, "rb");
        if (!file) return 1;
        files = realloc(files, sizeof(File) * (num_files + 1));
        fseek(file, 0, SEEK_END);
        size_t length = (size_t)ftell(file);
        rewind(file);
        files[num_files].bytes = malloc(length);
        files[num_files].length = length;
        if (fread(files[num_files++].bytes, 1, length, file) != length) return 1;
        fclose(file);
    }
    batch = malloc((size_t)BATCH * SIZE * SIZE * 3);
    pthread_t thread[64];
    Work job[64];
    for (int i = 0; i < threads; i++) job[i] = (Work){i, threads, images, 88172645463325252ULL + i};
    while (fgets(line, sizeof line, stdin)) {
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (int i = 0; i < threads; i++) pthread_create(&thread[i], NULL, work, &job[i]);
        for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
        printf("{\"wall_s\": %.6f, \"cpu_s\": %.6f}\n", seconds(CLOCK_MONOTONIC) - wall,
               seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        fflush(stdout);
    }
    return 0;
}
